//! Giving functions to vfio-pci, and giving them back.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tracing::{error, info};

use super::Address;
use super::host::{Host, Kernel};
use super::journal::{Before, Found, Journal, find};
use super::restore;
use crate::error::UserError;

const DRIVER: &str = "vfio-pci";

/// Functions whose driver is vfio-pci for as long as this value lives. Whoever uses them must have ended by then.
pub struct Bound {
    host: Host,
    kernel: Arc<dyn Kernel>,
    journal: Option<Journal>,
}

/// Gives these functions to vfio-pci. Where a run that died has left something, that is put back first.
///
/// # Errors
/// When they have to stay; then all is as it was.
pub(super) fn bind(host: &Host, kernel: Arc<dyn Kernel>, functions: &[Address]) -> Result<Bound, UserError> {
    let mut bound = Bound { host: host.clone(), kernel, journal: None };
    let _lock = lock(host)?;
    let folder = host.journals();
    let unwritten = |error: io::Error| {
        UserError::new(folder.display(), format!("can't keep a journal there: {error}"), "run as root")
    };
    for found in find(&folder).map_err(unwritten)? {
        match found {
            Found::Alive { run, entries } => {
                if let Some(entry) = entries.iter().find(|entry| functions.contains(&entry.function)) {
                    let problem = format!("in use by another kagero (process {run})");
                    return Err(UserError::new(entry.function, problem, "end that first"));
                }
            }
            Found::Dead { run, journal } => {
                info!("putting back what run {run} has left");
                for (function, outcome) in restore::put_back(host, &*bound.kernel, &journal) {
                    info!("{function}: {outcome}");
                }
            }
        }
    }
    let mut journal = Journal::create(&folder).map_err(unwritten)?;
    for &function in functions {
        let before = Before { function, driver: host.driver(function), only: host.driver_override(function) };
        let noted = journal.note(before).map_err(unwritten);
        let given = noted.and_then(|()| give(host, &*bound.kernel, function));
        if let Err(error) = given {
            // Dropped, it puts back what was done.
            bound.journal = Some(journal);
            return Err(error);
        }
    }
    bound.journal = Some(journal);
    Ok(bound)
}

/// One bind or restore at a time.
pub(super) fn lock(host: &Host) -> Result<File, UserError> {
    let folder = host.journals();
    let lock = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .and_then(|()| File::create(folder.join("lock")));
    let lock = lock.and_then(|file| Ok(flock(&file, FlockOperation::LockExclusive).map(|()| file)?));
    lock.map_err(|error| {
        UserError::new(folder.display(), format!("can't write there: {error}"), "run as root")
    })
}

/// Gives one function to vfio-pci. The override comes first, so that no other driver takes it in between.
fn give(host: &Host, kernel: &dyn Kernel, function: Address) -> Result<(), UserError> {
    let folder = host.function(function);
    let step = |what: &str, done: io::Result<()>| {
        done.map_err(|error| {
            UserError::new(function, format!("can't {what}: {error}"), "see the kernel's log (`dmesg`)")
        })
    };
    step("say that vfio-pci has it", kernel.write(&folder.join("driver_override"), DRIVER))?;
    if let Some(driver) = host.driver(function) {
        let unbound = kernel.write(&folder.join("driver/unbind"), &function.to_string());
        step(&format!("take it from {driver}"), unbound)?;
    }
    let probed = kernel.write(&host.path("sys/bus/pci/drivers_probe"), &function.to_string());
    step("give it to vfio-pci", probed)?;
    if host.driver(function).as_deref() != Some(DRIVER) {
        return Err(UserError::new(function, "vfio-pci did not take it", "see the kernel's log (`dmesg`)"));
    }
    Ok(())
}

impl Drop for Bound {
    fn drop(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        for (function, outcome) in restore::put_back(&self.host, &*self.kernel, &journal) {
            if outcome.is_good() {
                info!("{function}: {outcome}");
            } else {
                error!("{function}: {outcome}; `kagero devices restore` tries again");
            }
        }
    }
}
