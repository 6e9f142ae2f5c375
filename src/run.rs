//! A run of one guest, from the target's discovery to the end.

use std::sync::Arc;

use anyhow::{Context, anyhow};

use crate::boot::firmware::Firmware;
use crate::boot::kernel::Kernel;
use crate::config::{Boot, RunConfig};
use crate::control::Ending;
use crate::error::{Error, UserError};
use crate::machine::{self, Machine, Plan};
use crate::memory::GuestRam;
use crate::session::Session;
use crate::stop::Exit;
use crate::storage::Storage;

/// Runs the guest until somebody ends the run through `session.stop`.
///
/// # Errors
/// When the machine can't be made, or fails.
pub fn run(config: &RunConfig, session: &Session) -> Result<Exit, Error> {
    session.trace.check_devices(&crate::board::names())?;
    let ram = GuestRam::new(config.memory.bytes()).context("the guest's memory")?;
    let storage = Arc::new(Storage::new(Vec::new(), Vec::new(), ram.clone()).context("the storage path")?);
    let plan = Plan {
        ram,
        cpus: config.cpus,
        boot: boot(&config.boot)?,
        storage: Arc::clone(&storage),
        console: session.console.clone(),
        trace: session.trace.clone(),
        firmware_log: None,
    };
    std::thread::scope(|threads| {
        let path = threads.spawn(|| storage.run(&session.stop));
        let ending = live(&plan, config, session);
        // Whoever waits for the end, the storage thread among them, hears of it now.
        match ending {
            Ok(exit) => session.stop.request(exit),
            Err(error) => session.stop.fail(error),
        }
        match path.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("the storage thread ended: {error}"),
            Err(_) => tracing::error!("the storage thread panicked"),
        }
    });
    session.stop.take().unwrap_or_else(|| Err(anyhow!("the run ended without a reason").into()))
}

/// The machine's lives, one after another.
fn live(plan: &Plan, config: &RunConfig, session: &Session) -> Result<Exit, Error> {
    let mut machine = Machine::start(plan)?;
    let _terminal = session.attach(config)?;
    session.recorder.phase("machine started");
    loop {
        let ending = machine.wait(&session.console, &session.stop).context("waiting for the guest");
        let (bus, exits) = machine.stop();
        session.recorder.with(|report| {
            for (kind, count) in exits.counts() {
                *report.exits.entry(kind.to_owned()).or_default() += count;
            }
            let _ = &bus;
        });
        match ending? {
            Ending::Reset if config.reboot => {
                session.recorder.reboot();
                session.console.reboot();
                machine = Machine::start(plan)?;
            }
            Ending::Reset => return Ok(Exit::Reset),
            Ending::PowerOff => return Ok(Exit::PowerOff),
            Ending::Failed(why) => return Err(anyhow!(why).into()),
            // The stop's own reason stands; this one is not looked at.
            Ending::Asked => return Ok(Exit::Quit),
        }
    }
}

fn boot(boot: &Boot) -> Result<machine::Boot, Error> {
    Ok(match boot {
        Boot::Firmware(path) => {
            let image = std::fs::read(path)
                .map_err(|e| UserError::new(path.display(), e, "name a BIOS image with --firmware"))?;
            let firmware = Firmware::new(image)
                .map_err(|why| UserError::new(path.display(), why, "name a BIOS image with --firmware"))?;
            machine::Boot::Firmware(firmware)
        }
        Boot::Kernel { image, initrd, command_line } => machine::Boot::Kernel(Kernel {
            image: image.clone(),
            initrd: initrd.clone(),
            append: command_line.clone(),
        }),
    })
}
