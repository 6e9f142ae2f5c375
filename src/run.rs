//! A run of one guest, from the target's discovery to the end.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow};

use crate::attach::{self, Attached};
use crate::board;
use crate::boot;
use crate::boot::firmware::Firmware;
use crate::boot::kernel::Kernel;
use crate::config::{Boot, RunConfig};
use crate::control::Ending;
use crate::error::{Error, UserError};
use crate::kvm;
use crate::machine::{self, Machine, Plan};
use crate::memory::GuestRam;
use crate::passthrough::{self, Passed};
use crate::report::{DiskReport, Recorder, RoundTrips};
use crate::session::Session;
use crate::signals;
use crate::stop::{Exit, Stop};
use crate::storage::{Attachment, Storage};
use crate::trace::check_devices;

/// Runs the guest to its end, with everything around it.
///
/// What can't be done is refused before anything is made, and then there is no report either. A run that has begun has its
/// report whatever becomes of it.
///
/// # Errors
/// When the run is refused, or fails.
pub fn run(config: &RunConfig) -> Result<Exit, Error> {
    let recorder = Recorder::new(config);
    let stop = Stop::new().context("the event for the run's end")?;
    signals::end_on_signals(&stop).context("signal handlers")?;
    if let Some(limit) = config.timeout {
        stop.after(limit).context("the clock of --timeout")?;
    }
    let ready = Ready::new(config, &stop)?;
    if ready.is_some() {
        recorder.phase("target found");
    }
    let session = Session::open(config, stop, recorder)?;
    let outcome = match ready {
        Some(ready) => ready.run(config, &session),
        None => outcome(&session.stop),
    };
    session.finish(config, outcome)
}

/// What a run needs and may be refused.
struct Ready {
    ram: GuestRam,
    facts: boot::Machine,
    passed: Passed,
    boot: machine::Boot,
    attached: Attached,
}

impl Ready {
    /// `None` when the run was stopped while its targets were searched.
    fn new(config: &RunConfig, stop: &Stop) -> Result<Option<Self>, Error> {
        config.trace.as_ref().map_or(Ok(()), |trace| check_devices(trace, &board::names()))?;
        let opened = attach::open(config)?;
        let address_bits = kvm::check().map_err(|error| error.to_user_error())?;
        let boot = boot_from(&config.boot)?;
        let ram = GuestRam::new(config.memory.bytes()).map_err(|error| {
            UserError::new(
                "--memory",
                format!("this host can't give {} ({error})", config.memory),
                "give less",
            )
        })?;
        let passed = passthrough::take(config, &ram)?;
        let facts =
            machine::facts(config.cpus, &ram, address_bits, passed.functions.addresses().next().is_some());
        boot.check(&facts, &ram)?;
        let attached = opened.attach(config, &ram, stop)?;
        Ok(attached.map(|attached| Ready { ram, facts, passed, boot, attached }))
    }

    fn run(self, config: &RunConfig, session: &Session) -> Result<Exit, Error> {
        let Ready { ram, facts, passed, boot, attached } = self;
        let Passed { functions, backplane, iommu, bound } = passed;
        let Attached { disks, links, target } = attached;
        let storage = Arc::new(Storage::new(disks, links, ram.clone()).context("the storage path")?);
        let plan = Plan {
            ram,
            facts,
            boot,
            storage: Arc::clone(&storage),
            functions: Arc::new(functions),
            backplane,
            console: session.console.clone(),
            trace: session.trace.clone(),
            recorder: session.recorder.clone(),
            firmware_log: session
                .firmware_log
                .as_ref()
                .map(File::try_clone)
                .transpose()
                .context("the firmware's log")?,
        };
        std::thread::scope(|threads| {
            let path =
                threads.spawn(|| needed("the storage thread", &session.stop, || storage.run(&session.stop)));
            let ending = live(&plan, config, session);
            // Whoever waits for the end, the storage thread among them, hears of it now.
            match ending {
                Ok(exit) => session.stop.request(exit),
                Err(error) => session.stop.fail(error),
            }
            // It has told of its own failure.
            let _ = path.join();
        });
        storage.with_disks(|disks| session.recorder.with(|report| report.disks = reports(disks)));
        // Everything the guest wrote has been answered by now; the target lets its images go.
        drop(target);
        // The machine is gone, and with it all that has the functions: the host gets them back.
        drop((plan, iommu));
        drop(bound);
        outcome(&session.stop)
    }
}

fn outcome(stop: &Stop) -> Result<Exit, Error> {
    stop.take().unwrap_or_else(|| Err(anyhow!("the run ended without a reason").into()))
}

/// Does the work of a thread that the run can't do without: when it fails or panics, so does the run.
fn needed(name: &'static str, stop: &Stop, work: impl FnOnce() -> io::Result<()>) {
    // What a panic leaves behind is only looked at to end the run.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => stop.fail(anyhow!(error).context(name)),
        Err(_) => stop.fail(anyhow!("{name} panicked: this is a bug, please report it")),
    }
}

/// The machine's lives, one after another.
fn live(plan: &Plan, config: &RunConfig, session: &Session) -> Result<Exit, Error> {
    let mut machine = Machine::start(plan, None)?;
    let _terminal = session.attach(config)?;
    session.recorder.phase("machine started");
    loop {
        let ending = machine.wait(&session.console, &session.stop).context("waiting for the guest");
        let (bus, exits) = machine.stop();
        session.recorder.with(|report| {
            for (kind, count) in exits.counts() {
                *report.exits.entry(kind.to_owned()).or_default() += count;
            }
            for (device, reads, writes) in bus.accesses().chain(plan.functions.take_accesses()) {
                *report.accesses.entry(device.to_owned()).or_default() += reads + writes;
            }
            let bad = bus.bad_accesses();
            report.bus.bad_pio += bad.pio.load(Ordering::Relaxed);
            report.bus.bad_mmio += bad.mmio.load(Ordering::Relaxed);
            for (fault, count) in bad.by_fault() {
                *report.bus.by_fault.entry(fault.to_owned()).or_default() += count;
            }
        });
        match ending? {
            Ending::Reset if config.reboot => {
                session.recorder.reboot();
                session.console.reboot();
                let rtc = bus.chipset().clock_after_reset();
                // One machine at a time: this lets go of the old one's memory slots and descriptors.
                drop(bus);
                machine = Machine::start(plan, Some(rtc))?;
            }
            Ending::Reset => return Ok(Exit::Reset),
            Ending::PowerOff => return Ok(Exit::PowerOff),
            Ending::Failed(why) => return Err(anyhow!(why).into()),
            // The stop's own reason stands; this one is not looked at.
            Ending::Asked => return Ok(Exit::Quit),
        }
    }
}

fn boot_from(boot: &Boot) -> Result<machine::Boot, UserError> {
    Ok(match boot {
        Boot::Firmware(path) => machine::Boot::Firmware(
            Firmware::open(path)
                .map_err(|why| UserError::new(path.display(), why, "name a BIOS image with --firmware"))?,
        ),
        Boot::Kernel { image, initrd, command_line } => machine::Boot::Kernel(Kernel {
            image: image.clone(),
            initrd: initrd.clone(),
            append: command_line.clone(),
        }),
    })
}

fn reports(disks: &[Attachment]) -> Vec<DiskReport> {
    let report = |disk: &Attachment| {
        let statistics = disk.initiator.statistics();
        let trip = &statistics.round_trip;
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        DiskReport {
            position: disk.initiator.config().disk,
            source: disk.source.clone(),
            sectors: disk.initiator.disk().map_or(0, |disk| disk.sectors),
            commands: disk.commands,
            frames_sent: statistics.frames_sent,
            frames_received: statistics.frames_received,
            bytes_sent: statistics.bytes_sent,
            bytes_received: statistics.bytes_received,
            bytes_read: disk.bytes.0,
            bytes_written: disk.bytes.1,
            resends: statistics.resends,
            duplicates: statistics.stale,
            errors: statistics.failed,
            losses: statistics.losses,
            round_trip: RoundTrips {
                count: trip.samples(),
                min_us: micros(trip.min()),
                mean_us: micros(trip.mean()),
                max_us: micros(trip.max()),
                smoothed_us: micros(trip.smoothed()),
            },
        }
    };
    disks.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(work: impl FnOnce() -> io::Result<()>) -> Option<String> {
        let stop = Stop::new().unwrap();
        needed("the storage thread", &stop, work);
        stop.take().map(|outcome| outcome.unwrap_err().to_string())
    }

    #[test]
    fn a_thread_that_fails_or_panics_ends_the_run() {
        assert_eq!(outcome(|| Ok(())), None);
        assert_eq!(outcome(|| Err(io::Error::other("no poll"))), Some("the storage thread: no poll".into()));
        let panicked = "the storage thread panicked: this is a bug, please report it";
        assert_eq!(outcome(|| panic!("on purpose")), Some(panicked.into()));
    }
}
