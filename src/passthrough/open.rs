//! Opening what was planned.

use super::Plan;
use crate::error::{Error, UserError};

/// Functions that are the guest's now.
#[derive(Debug)]
pub enum Opened {}

/// Opens the planned functions through VFIO.
///
/// # Errors
/// Always, in this version.
pub fn open(plan: &Plan) -> Result<Opened, Error> {
    let problem = format!(
        "{} of this host can go, but this version can't give them to a guest yet",
        match plan.functions.len() {
            1 => "one function".to_owned(),
            count => format!("{count} functions"),
        }
    );
    Err(UserError::new("--passthrough", problem, "leave it out").into())
}
