//! SIGTERM and SIGINT end a run cleanly; the second one at once.

use std::io;

use signal_hook::consts::{SIGCONT, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::console::terminal;
use crate::stop::{Exit, Stop};

/// Lets the first SIGTERM or SIGINT (ctrl-C, while the terminal is not the guest's) end the run, and the second the process.
///
/// SIGHUP, SIGQUIT and all others do what they always do.
///
/// # Errors
/// When the handlers or their thread can't be made.
pub fn end_on_signals(stop: &Stop) -> io::Result<()> {
    let stop = stop.clone();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCONT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            match signal {
                // Whoever stopped us has taken the terminal back meanwhile.
                SIGCONT => terminal::resume(),
                _ if !asked => {
                    asked = true;
                    stop.request(Exit::Signal { number: u8::try_from(signal).unwrap_or(u8::MAX) });
                }
                _ => {
                    terminal::restore();
                    crate::log::say("kagero: second signal; ended at once\n");
                    std::process::exit(128 + signal);
                }
            }
        }
    })?;
    Ok(())
}
