//! The cable in memory: order, readiness, loss when full, buffers that go round.

use std::os::fd::AsFd;

use kagero_aoe::link::Link;
use kagero_link::MemoryLink;
use kagero_link::memory::Options;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn send(link: &mut MemoryLink, frame: &[u8]) -> bool {
    link.transmit(|buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    })
}

fn receive(link: &mut MemoryLink) -> Option<Vec<u8>> {
    let mut frame = None;
    link.receive(|bytes| frame = Some(bytes.to_vec()));
    frame
}

fn readable(link: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(link, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn frames_arrive_in_order_and_both_ways() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    assert!(send(&mut a, b"one") && send(&mut a, b"two") && send(&mut b, b"back"));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"one"[..]));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"two"[..]));
    assert_eq!(receive(&mut b), None);
    assert_eq!(receive(&mut a).as_deref(), Some(&b"back"[..]));
    assert_ne!(a.mac(), b.mac());
}

#[test]
fn readable_until_found_empty() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    assert!(!readable(&b));
    send(&mut a, b"one");
    assert!(readable(&b) && !readable(&a));
    receive(&mut b);
    assert!(readable(&b), "whoever polls between two frames must not miss the second");
    assert_eq!(receive(&mut b), None);
    assert!(!readable(&b));
    send(&mut a, b"two");
    assert!(readable(&b));
}

#[test]
fn held_frames_are_announced_at_the_flush() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    a.hold();
    send(&mut a, b"one");
    assert!(!readable(&b));
    assert!(a.flush());
    assert!(readable(&b));
    assert!(receive(&mut b).is_some());
}

#[test]
fn a_full_queue_loses_the_newest() {
    let (mut a, mut b) = MemoryLink::pair(Options { queue: 2, ..Options::default() }).unwrap();
    for frame in [b"one", b"two", b"six"] {
        assert!(send(&mut a, frame), "the sender of a lost frame can't tell");
    }
    assert_eq!(a.counters().unsent, 1);
    assert_eq!(receive(&mut b).as_deref(), Some(&b"one"[..]));
    assert!(send(&mut a, b"ten"));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"two"[..]));
    assert_eq!(receive(&mut b).as_deref(), Some(&b"ten"[..]));
}

#[test]
fn buffers_go_round() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    let mut addresses = std::collections::HashSet::new();
    for _ in 0..100 {
        a.transmit(|buffer| {
            addresses.insert(buffer.as_ptr() as usize);
            Some(60)
        });
        receive(&mut b);
    }
    assert_eq!(addresses.len(), 1);
}

#[test]
fn nothing_to_send_sends_nothing() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    assert!(!a.transmit(|_| None));
    assert!(!a.transmit(|buffer| Some(buffer.len() + 1)), "a length beyond the buffer is refused");
    assert_eq!(receive(&mut b), None);
}

#[test]
fn an_end_alone_sends_into_the_void() {
    let (mut a, b) = MemoryLink::pair(Options::default()).unwrap();
    drop(b);
    assert!(send(&mut a, b"anyone?"));
    assert_eq!(a.counters().unsent, 1);
    assert_eq!(receive(&mut a), None);
}

#[test]
fn ends_work_in_threads_of_their_own() {
    let (mut a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    let echo = std::thread::spawn(move || {
        let mut left = 1000;
        while left > 0 {
            let mut fds = [PollFd::new(&b, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            while let Some(frame) = receive(&mut b) {
                send(&mut b, &frame);
                left -= 1;
            }
        }
    });
    for i in 0..1000u32 {
        send(&mut a, &i.to_be_bytes());
        let frame = loop {
            poll(&mut [PollFd::new(&a, PollFlags::IN)], None).unwrap();
            if let Some(frame) = receive(&mut a) {
                break frame;
            }
        };
        assert_eq!(frame, i.to_be_bytes());
    }
    echo.join().unwrap();
}
