//! The terminal, lent to the guest and always given back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcgetpgrp, tcsetattr,
};

/// The terminal while the guest has it, with the modes it came with.
static LENT: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The guest has the terminal as long as this lives.
#[derive(Debug)]
pub struct Lent(());

/// Whether `fd` is a terminal that this process may read: in the background it would be stopped for it.
#[must_use]
pub fn is_ours(fd: BorrowedFd<'_>) -> bool {
    isatty(fd) && tcgetpgrp(fd).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Gives the terminal to the guest: every key at once, as a byte, without an echo and without a meaning.
///
/// It comes back when the result is dropped, on a panic in any thread, and with [`restore`].
///
/// # Errors
/// When `fd` is not a terminal.
pub fn lend(fd: BorrowedFd<'_>) -> io::Result<Lent> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        // Before the message, so that it can be read.
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            next(panic);
        }));
    });
    let fd = fd.try_clone_to_owned()?;
    let modes = tcgetattr(&fd)?;
    tcsetattr(&fd, OptionalActions::Now, &raw(&modes))?;
    *LENT.lock().unwrap_or_else(PoisonError::into_inner) = Some((fd, modes));
    Ok(Lent(()))
}

/// Takes the terminal back from the guest, if it has it.
pub fn restore() {
    if let Some((fd, modes)) = LENT.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(fd.as_fd(), OptionalActions::Now, &modes);
    }
}

/// Gives the terminal to the guest again, if it has it, after a shell has changed the modes.
pub fn resume() {
    if let Some((fd, modes)) = &*LENT.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = tcsetattr(fd.as_fd(), OptionalActions::Now, &raw(modes));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        restore();
    }
}

/// As `cfmakeraw`, but with output processing left on: our own messages on the same terminal end their lines with a line feed alone.
fn raw(modes: &Termios) -> Termios {
    let mut raw = modes.clone();
    raw.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    raw.output_modes |= OutputModes::OPOST;
    raw.local_modes -=
        LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}
