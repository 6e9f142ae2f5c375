//! The terminal is lent to the guest and always given back. One test, as there is one terminal.

mod common;

use std::os::fd::OwnedFd;

use kagero::console::terminal::{lend, restore};
use rustix::termios::{LocalModes, OutputModes, Termios, tcgetattr};

use common::pty;

#[test]
fn lent_and_given_back() {
    let (_master, terminal) = pty();
    let before = tcgetattr(&terminal).unwrap();
    assert!(before.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));

    let lent = lend(as_fd(&terminal)).unwrap();
    let during = tcgetattr(&terminal).unwrap();
    assert!(!during.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    assert!(during.output_modes.contains(OutputModes::OPOST), "our own lines would be a staircase");
    drop(lent);
    assert_same(&before, &tcgetattr(&terminal).unwrap());

    // A panic anywhere gives it back before its message is printed.
    let lent = lend(as_fd(&terminal)).unwrap();
    let _ = std::thread::spawn(|| panic!("on purpose")).join();
    assert_same(&before, &tcgetattr(&terminal).unwrap());
    drop(lent);

    // So does the forced end, which runs no destructor.
    std::mem::forget(lend(as_fd(&terminal)).unwrap());
    restore();
    assert_same(&before, &tcgetattr(&terminal).unwrap());

    assert!(lend(as_fd(&std::fs::File::open("/dev/null").unwrap().into())).is_err());
}

fn assert_same(left: &Termios, right: &Termios) {
    assert_eq!(left.local_modes, right.local_modes);
    assert_eq!(left.input_modes, right.input_modes);
    assert_eq!(left.output_modes, right.output_modes);
}

fn as_fd(fd: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}
