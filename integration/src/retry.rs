//! Retries that are counted and reported, so that a fault of ours never hides as a flake of the lab.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicU32, Ordering};

static RETRIES: AtomicU32 = AtomicU32::new(0);

/// A result and how many tries failed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried<T> {
    /// What the last try returned.
    pub value: T,
    /// How many failed before.
    pub retries: u32,
}

/// Runs `attempt` up to `tries` times. Every failure but the last is printed with its number.
///
/// # Errors
/// The last try's error.
pub fn with_retries<T>(
    what: &str,
    tries: u32,
    mut attempt: impl FnMut(u32) -> Result<T>,
) -> Result<Retried<T>> {
    let mut retries = 0;
    loop {
        match attempt(retries) {
            Ok(value) => return Ok(Retried { value, retries }),
            Err(e) if retries + 1 < tries => {
                retries += 1;
                count(what, retries, &e);
            }
            Err(e) => return Err(e).with_context(|| format!("{what} failed {} times", retries + 1)),
        }
    }
}

/// Prints and counts one retry.
pub fn count(what: &str, number: u32, why: &anyhow::Error) {
    RETRIES.fetch_add(1, Ordering::Relaxed);
    eprintln!("lab: retry {number} of {what}: {why:#}");
}

/// All retries of this process so far.
pub fn total() -> u32 {
    RETRIES.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_counted_and_the_last_error_is_kept() {
        let before = total();
        let third =
            with_retries("third time", 3, |n| if n == 2 { Ok(n) } else { anyhow::bail!("stall {n}") });
        assert_eq!(third.unwrap(), Retried { value: 2, retries: 2 });
        let never = with_retries("never", 2, |n| -> Result<()> { anyhow::bail!("stall {n}") });
        let error = format!("{:#}", never.unwrap_err());
        assert_eq!(error, "never failed 2 times: stall 1");
        assert_eq!(total() - before, 3);
    }
}
