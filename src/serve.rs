//! Serving disk images as AoE targets.

use crate::config::ServeConfig;
use crate::error::Error;
use crate::stop::Exit;

/// Serves until a signal ends it.
///
/// # Errors
/// When an image or the interface can't be used.
pub fn serve(_config: &ServeConfig) -> Result<Exit, Error> {
    Err(anyhow::anyhow!("this build has no target yet").into())
}
