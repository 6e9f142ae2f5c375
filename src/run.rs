//! A run of one guest, from the target's discovery to the end.

use crate::config::RunConfig;
use crate::error::Error;
use crate::session::Session;
use crate::stop::Exit;

/// Runs the guest until somebody ends the run through `session.stop`.
///
/// # Errors
/// When the machine can't be made, or fails.
pub fn run(_config: &RunConfig, _session: &Session) -> Result<Exit, Error> {
    Err(anyhow::anyhow!("this build has no virtual machine yet").into())
}
