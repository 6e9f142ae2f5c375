//! The host's side of passthrough: which PCI functions are here, which can go to the guest, and giving them to VFIO and back.
//!
//! All that is known comes from files ([`Host`]), so that made-up hosts can be looked at as well. A [`Plan`] is made before anything is
//! changed; what is changed is written down before it is.

mod able;
mod address;
mod bind;
mod carried;
mod class;
mod function;
mod host;
mod journal;
mod list;
mod open;
mod plan;
mod reason;
mod restore;
mod users;

#[cfg(test)]
mod tests;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

pub use able::{check, check_memory, lockable};
pub use address::{Address, Choice};
pub use bind::Bound;
pub use carried::{Carried, Needs};
pub use class::Class;
pub use function::Function;
pub use host::Host;
pub use list::{Device, Listing};
use open::{Memory, open};
pub use plan::{Plan, Planned};
pub use reason::Reason;
pub use restore::Restored;

use crate::config::{RunConfig, Source};
use crate::error::{Error, UserError};
use crate::functions::Functions;
use crate::kvm::Backplane;
use crate::memory::GuestRam;
use host::{Kernel, Sysfs};

/// What the guest gets of this host. The fields are dropped in this order: VFIO lets go before the drivers change.
pub(crate) struct Passed {
    /// What the machine is to have on its bus.
    pub(crate) functions: Functions,
    /// Where they meet the machine.
    pub(crate) backplane: Arc<Backplane>,
    /// Which memory they reach, while they live.
    pub(crate) iommu: Option<Memory>,
    /// Undoes what was done to the host.
    pub(crate) bound: Option<Bound>,
}

/// Takes what a run is to pass through, and says what stays.
///
/// # Errors
/// When something can't go; then the host is as it was.
pub(crate) fn take(config: &RunConfig, ram: &GuestRam) -> Result<Passed, Error> {
    if config.passthrough.is_empty() {
        let (functions, backplane) = (Functions::none(), Arc::new(Backplane::new()));
        return Ok(Passed { functions, backplane, iommu: None, bound: None });
    }
    let host = Host::here();
    let plan = prepare(&host, config, lockable())?;
    for (address, reason) in &plan.stay {
        tracing::info!("{address} stays: {reason}");
    }
    for (address, group) in &plan.along {
        tracing::info!("{address} is taken along, unseen by the guest: it shares IOMMU group {group}");
    }
    let bound = if config.bind { bind_all(&host, Arc::new(Sysfs), &plan)? } else { None };
    open(&plan, ram, bound)
}

/// Makes the plan, and checks that the host is up to it. Changes nothing.
fn prepare(host: &Host, config: &RunConfig, lockable: Option<u64>) -> Result<Plan, UserError> {
    check(host, config.bind)?;
    let here = function::functions(host, &Needs::of(config));
    let plan = Plan::new(&here, &config.passthrough, config.bind)?;
    check_memory(config.memory, lockable)?;
    Ok(plan)
}

fn bind_all(host: &Host, kernel: Arc<dyn Kernel>, plan: &Plan) -> Result<Option<Bound>, UserError> {
    if plan.bind.is_empty() {
        return Ok(None);
    }
    bind::bind(host, kernel, &plan.bind).map(Some)
}

/// Every PCI function of a host. Those that carry the traffic of one of these interfaces stay.
#[must_use]
pub fn list(host: &Host, interfaces: Vec<String>) -> Listing {
    list::list(host, &Needs { interfaces, disks: Vec::new() })
}

/// Puts back what runs have left that could not do it themselves.
///
/// # Errors
/// When journals can't be read.
pub fn restore(host: &Host) -> Result<Restored, UserError> {
    restore::restore(host, &Sysfs)
}

impl Needs {
    /// What a run's disks need. Images that are files lie on file systems, which are seen by themselves.
    fn of(config: &RunConfig) -> Self {
        let mut needs = Needs::default();
        for disk in &config.disks {
            match &disk.source {
                Source::Aoe { interface, .. } => needs.interfaces.push(interface.clone()),
                Source::File(path) => {
                    let meta = std::fs::metadata(path).ok().filter(|meta| meta.file_type().is_block_device());
                    needs.disks.extend(
                        meta.map(|meta| (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))),
                    );
                }
            }
        }
        needs
    }
}
