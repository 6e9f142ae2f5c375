//! Faults on a link, by a real clock: who only waits for the file descriptor gets every frame that is not lost.

use std::os::fd::AsFd;

use kagero_aoe::link::Link;
use kagero_link::memory::{MemoryLink, Options};
use kagero_link::{AnyLink, Faulty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn send(link: &mut impl Link, byte: u8) {
    assert!(link.transmit(|buffer| {
        buffer[..60].fill(byte);
        Some(60)
    }));
}

fn wait(link: &impl AsFd) {
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(link, PollFlags::IN)], Some(&patience)).unwrap(), 1);
}

#[test]
fn delayed_frames_wake_the_receiver() {
    let (mut a, b) = MemoryLink::pair(Options::default()).unwrap();
    let mut b = Faulty::new(b, &"delay=20ms,jitter=5ms".parse().unwrap(), 1).unwrap();
    for byte in 0..3 {
        send(&mut a, byte);
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        wait(&b);
        while b.receive(|frame| got.push(frame[0])) {}
    }
    assert_eq!(got, [0, 1, 2]);
    assert_eq!(b.tally().1.sent, 3);
}

#[test]
fn delayed_frames_wake_the_sender() {
    let (a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    let mut a = AnyLink::from(a).with_faults(&"delay=20ms".parse().unwrap(), 1).unwrap();
    send(&mut a, 7);
    wait(&a);
    assert!(!a.receive(|_| {}), "nothing came, but what was due has gone out");
    wait(&b);
    assert!(b.receive(|frame| assert_eq!(frame[0], 7)));
}

#[test]
fn a_caller_who_stops_early_is_woken_again() {
    let (mut a, b) = MemoryLink::pair(Options::default()).unwrap();
    let mut b = Faulty::new(b, &"delay=1us".parse().unwrap(), 1).unwrap();
    for byte in 0..100 {
        send(&mut a, byte);
    }
    let mut got = 0;
    while got < 100 {
        wait(&b);
        // One frame for each wake-up, although all of them have left the cable at the first.
        got += u32::from(b.receive(|_| {}));
    }
}

#[test]
fn nothing_comes_before_its_time_or_out_of_a_dead_network() {
    let (mut a, b) = MemoryLink::pair(Options::default()).unwrap();
    let mut b = AnyLink::from(b).with_faults(&"delay=3600s".parse().unwrap(), 1).unwrap();
    send(&mut a, 1);
    assert!(!b.receive(|_| {}));
    let mut b = b.with_faults(&"loss=100%".parse().unwrap(), 1).unwrap();
    send(&mut a, 2);
    assert!(!b.receive(|_| {}));
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&b, PollFlags::IN)], Some(&now)).unwrap(), 0);
    assert_eq!(b.fault_tally().unwrap().1.lost, 1);
}
