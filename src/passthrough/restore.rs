//! Putting drivers back where they were.

use std::fmt;
use std::io;

use super::bind::lock;
use super::host::{Host, Kernel};
use super::journal::{Before, Found, Journal, find};
use super::{Address, users};
use crate::error::UserError;

/// What became of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has the driver again that it had.
    Back(Option<String>),
    /// It is not there any more, and so needs nothing.
    Gone,
    /// It has another driver than before, or none.
    Not { was: Option<String>, now: Option<String>, why: Option<String> },
    /// Taking it from vfio-pci would wait for whoever uses it.
    InUse(String),
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Outcome::Back(_) | Outcome::Gone)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".into());
        match self {
            Outcome::Back(Some(driver)) => write!(f, "back with {driver}"),
            Outcome::Back(None) => f.write_str("back without a driver, as before"),
            Outcome::Gone => f.write_str("not there any more"),
            Outcome::Not { was, now, why } => {
                write!(f, "has {}, and had {}", name(now), name(was))?;
                why.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
            }
            Outcome::InUse(user) => write!(f, "in use by {user}, left as it is"),
        }
    }
}

/// Undoes what a journal tells of, the last first. The journal is removed once all of it is undone.
pub(super) fn put_back(host: &Host, kernel: &dyn Kernel, journal: &Journal) -> Vec<(Address, Outcome)> {
    let outcomes: Vec<_> = journal
        .entries
        .iter()
        .rev()
        .map(|before| (before.function, put_one_back(host, kernel, before)))
        .collect();
    if outcomes.iter().all(|(_, outcome)| outcome.is_good())
        && let Err(error) = journal.remove()
    {
        tracing::warn!("the journal stays, though all is undone: {error}");
    }
    outcomes
}

/// Undoes what was done to one function, however much of it was: every step may be done again.
fn put_one_back(host: &Host, kernel: &dyn Kernel, before: &Before) -> Outcome {
    let Before { function, driver: was, only } = before;
    if !host.function(*function).exists() {
        return Outcome::Gone;
    }
    if host.driver(*function) != *was
        && let Some(user) = users::of(host, *function)
    {
        return Outcome::InUse(user);
    }
    let undone = undo(host, kernel, before);
    let now = host.driver(*function);
    let right = now == *was && host.driver_override(*function) == *only;
    match undone {
        Ok(()) if right => Outcome::Back(now),
        Ok(()) if now == *was => {
            Outcome::Not { was: was.clone(), now, why: Some("its driver_override has changed".into()) }
        }
        undone => Outcome::Not { was: was.clone(), now, why: undone.err().map(|error| error.to_string()) },
    }
}

fn undo(host: &Host, kernel: &dyn Kernel, before: &Before) -> io::Result<()> {
    let Before { function, driver: was, only } = before;
    let folder = host.function(*function);
    let name = function.to_string();
    if host.driver_override(*function) != *only {
        // A lone line break clears it.
        kernel.write(&folder.join("driver_override"), only.as_deref().unwrap_or("\n"))?;
    }
    let now = host.driver(*function);
    if now == *was {
        return Ok(());
    }
    if now.as_deref().is_some_and(kagero_vfio::is_vfio) {
        kernel.write(&folder.join("driver/unbind"), &name)?;
    }
    let Some(was) = was else { return Ok(()) };
    // That very driver, which is not always the one that would be found first. If its module is gone, whichever fits.
    let bound = kernel.write(&host.path(format!("sys/bus/pci/drivers/{was}/bind")), &name);
    bound.or_else(|_| kernel.write(&host.path("sys/bus/pci/drivers_probe"), &name))
}

/// What `kagero devices restore` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Line by line, for people.
    pub text: String,
    /// Whether nothing is left to be done.
    pub complete: bool,
}

/// Puts back what runs have left that could not do it themselves. Runs that live keep what they have.
pub(super) fn restore(host: &Host, kernel: &dyn Kernel) -> Result<Restored, UserError> {
    let folder = host.journals();
    if !folder.exists() {
        return Ok(Restored { text: "nothing to put back\n".into(), complete: true });
    }
    let _lock = lock(host)?;
    let unread = |error: io::Error| {
        UserError::new(folder.display(), format!("can't read its journals: {error}"), "run as root")
    };
    let mut restored = Restored { text: String::new(), complete: true };
    for found in find(&folder).map_err(unread)? {
        match found {
            Found::Alive { run, entries } => {
                let functions: Vec<_> = entries.iter().map(|entry| entry.function.to_string()).collect();
                let functions = functions.join(", ");
                restored.text += &format!("process {run} still runs, and keeps what it has: {functions}\n");
            }
            Found::Dead { run: _, journal } => {
                for (function, outcome) in put_back(host, kernel, &journal) {
                    restored.complete &= outcome.is_good();
                    restored.text += &format!("{function}: {outcome}\n");
                }
            }
        }
    }
    if restored.text.is_empty() {
        restored.text = "nothing to put back\n".into();
    }
    Ok(restored)
}
