//! Finding the AoE targets on a network.

use serde::Serialize;

use crate::config::DiscoverConfig;
use crate::error::Error;

/// What answered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// By address.
    pub targets: Vec<()>,
}

impl Found {
    /// As a JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        String::new()
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        String::new()
    }
}

/// Asks by broadcast and collects the answers.
///
/// # Errors
/// When the interface can't be used.
pub fn discover(_config: &DiscoverConfig) -> Result<Found, Error> {
    Err(anyhow::anyhow!("this build has no initiator yet").into())
}
