//! The packet ring and the tap, over a cable between two virtual interfaces.

mod namespace;

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use kagero_aoe::link::Link;
use kagero_link::packet::Options;
use kagero_link::{Error, PacketLink, TapLink};
use namespace::{ip, with_cable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const AOE: [u8; 2] = [0x88, 0xA2];

fn open(name: &str) -> PacketLink {
    PacketLink::open(name, Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn frame(to: [u8; 6], from: [u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype, payload].concat()
}

fn send(link: &mut impl Link, frame: &[u8]) -> bool {
    link.transmit(|buffer| {
        buffer[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    })
}

/// The next frame, if one comes within a second.
fn receive(link: &mut (impl Link + AsFd)) -> Option<Vec<u8>> {
    let mut found = None;
    for _ in 0..2 {
        if link.receive(|bytes| found = Some(bytes.to_vec())) {
            break;
        }
        poll(&mut [PollFd::new(&*link, PollFlags::IN)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
    }
    found
}

/// Whether a frame is there already; veth delivers before the sender's call returns.
fn nothing(link: &mut impl Link) -> bool {
    !link.receive(|_| {})
}

#[test]
fn jumbo_frames_cross_whole() {
    with_cable(|| {
        let (mut a, mut b) = (open("kgv0"), open("kgv1"));
        assert_eq!(a.mtu(), 9_000);
        let payload: Vec<u8> = (0..9_000u32).map(|i| i as u8).collect();
        let sent = frame(b.mac(), a.mac(), AOE, &payload);
        assert!(send(&mut a, &sent));
        assert_eq!(receive(&mut b), Some(sent));
        assert!(nothing(&mut a), "our own frame came back");
        assert_eq!((a.counters().sent, b.counters().received), (1, 1));
    });
}

#[test]
fn short_frames_are_padded_with_zeros() {
    with_cable(|| {
        let (mut a, mut b) = (open("kgv0"), open("kgv1"));
        let long = frame(b.mac(), a.mac(), AOE, &[0xAA; 1000]);
        for _ in 0..200 {
            send(&mut a, &long);
            assert_eq!(receive(&mut b).as_deref(), Some(&long[..]));
        }
        let short = frame(b.mac(), a.mac(), AOE, b"short");
        assert!(send(&mut a, &short));
        let mut padded = short.clone();
        padded.resize(60, 0);
        assert_eq!(receive(&mut b), Some(padded));
    });
}

#[test]
fn frames_of_others_are_passed_over() {
    with_cable(|| {
        let (mut a, mut b) = (open("kgv0"), open("kgv1"));
        ip("link set dev kgv1 promisc on");
        let (from, to) = (a.mac(), b.mac());
        send(&mut a, &frame([2, 9, 9, 9, 9, 9], from, AOE, b"another station"));
        send(&mut a, &frame(to, from, [0x08, 0x00], b"another protocol"));
        let tagged = [&[0, 7][..], &AOE, b"another VLAN"].concat();
        send(&mut a, &frame(to, from, [0x81, 0x00], &tagged));
        let broadcast = frame([0xFF; 6], from, AOE, &[7; 60]);
        send(&mut a, &broadcast);
        assert_eq!(receive(&mut b), Some(broadcast));
        assert!(nothing(&mut b));
    });
}

#[test]
fn a_promiscuous_link_takes_the_frames_of_other_stations() {
    with_cable(|| {
        let mut a = open("kgv0");
        let options = Options { promiscuous: true, ..Options::default() };
        let mut b = PacketLink::open("kgv1", options).unwrap_or_else(|e| panic!("{e}"));
        let other = frame([2, 9, 9, 9, 9, 9], a.mac(), AOE, &[7; 60]);
        send(&mut a, &other);
        assert_eq!(receive(&mut b), Some(other));
        // Its own answers must not come back to it.
        let answer = frame(a.mac(), [2, 9, 9, 9, 9, 9], AOE, &[8; 60]);
        send(&mut b, &answer);
        assert_eq!(receive(&mut a), Some(answer));
        assert!(nothing(&mut b));
    });
}

#[test]
fn held_frames_go_out_together_and_the_ring_goes_round() {
    with_cable(|| {
        let small = Options { receive_slots: 50, transmit_slots: 40, promiscuous: false };
        let mut a = PacketLink::open("kgv0", small).unwrap();
        let mut b = PacketLink::open("kgv1", small).unwrap();
        let (from, to) = (a.mac(), b.mac());
        for round in 0..20u8 {
            a.hold();
            for i in 0..40u8 {
                assert!(send(&mut a, &frame(to, from, AOE, &[round, i, 1, 2].repeat(500))));
            }
            assert!(nothing(&mut b));
            assert!(a.flush());
            for i in 0..40u8 {
                let got = receive(&mut b).expect("every frame");
                assert_eq!(got[14..18], [round, i, 1, 2]);
            }
            assert!(nothing(&mut b));
        }
    });
}

#[test]
fn a_full_ring_counts_what_it_lost() {
    with_cable(|| {
        let mut a = open("kgv0");
        let mut b =
            PacketLink::open("kgv1", Options { receive_slots: 10, transmit_slots: 1, promiscuous: false })
                .unwrap();
        let sent = frame(b.mac(), a.mac(), AOE, &[1; 500]);
        for _ in 0..100 {
            send(&mut a, &sent);
        }
        let mut received = 0;
        while receive(&mut b).is_some() {
            received += 1;
        }
        assert!((10..100).contains(&received));
        assert_eq!(b.counters().overrun, 100 - received);
    });
}

#[test]
fn goes_on_after_the_interface_was_down() {
    with_cable(|| {
        let (mut a, mut b) = (open("kgv0"), open("kgv1"));
        ip("link set dev kgv0 down");
        let ready = PollFlags::IN | PollFlags::ERR;
        let polled = |link: &PacketLink| {
            poll(&mut [PollFd::new(link, ready)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap()
        };
        assert_eq!(polled(&a), 1, "the socket tells of it");
        assert!(nothing(&mut a));
        assert_eq!(polled(&a), 0, "but only once");
        let sent = frame(b.mac(), a.mac(), AOE, &[1; 500]);
        for _ in 0..300 {
            assert!(send(&mut a, &sent), "sending goes nowhere, and does not get stuck");
        }
        assert_eq!(a.counters().unsent, 300);
        ip("link set dev kgv0 up");
        let sent = frame(b.mac(), a.mac(), AOE, &[2; 500]);
        // The other end's carrier comes back with its peer.
        let arrived = (0..100).any(|_| {
            send(&mut a, &sent);
            receive(&mut b).is_some_and(|got| got == sent)
        });
        assert!(arrived);
        let back = frame(a.mac(), b.mac(), AOE, &[3; 500]);
        send(&mut b, &back);
        assert_eq!(receive(&mut a), Some(back));
    });
}

#[test]
fn shared_links_each_serve_their_own_stations() {
    with_cable(|| {
        let mut members = PacketLink::open_shared("kgv0", Options::default(), 3).unwrap();
        let small = Options { receive_slots: 16, ..Options::default() };
        let mut client = PacketLink::open("kgv1", small).unwrap();
        let mut whose = BTreeMap::new();
        for round in 0..4u8 {
            for station in 0..64 {
                let sent = frame(members[0].mac(), [2, 0, 0, 0, 0, station], AOE, &[round; 100]);
                assert!(send(&mut client, &sent));
                let mut takers = Vec::new();
                for (number, member) in members.iter_mut().enumerate() {
                    while member.receive(|bytes| assert_eq!(bytes, sent)) {
                        takers.push(number);
                    }
                }
                assert_eq!(takers.len(), 1, "the frame came to {takers:?}");
                assert_eq!(*whose.entry(station).or_insert(takers[0]), takers[0], "station {station}");
            }
            if round == 1 {
                ip("link set dev kgv0 down");
                ip("link set dev kgv0 up");
                // The other end's carrier comes back with its peer.
                let hello = frame(members[0].mac(), client.mac(), AOE, &[9; 100]);
                let arrived = (0..100).any(|_| {
                    send(&mut client, &hello);
                    let mut fds: Vec<_> =
                        members.iter().map(|member| PollFd::new(member, PollFlags::IN)).collect();
                    poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
                    members.iter_mut().any(|member| !nothing(member))
                });
                assert!(arrived);
                members.iter_mut().for_each(|member| while !nothing(member) {});
            }
        }
        for number in 0..3 {
            let stations = whose.values().filter(|member| **member == number).count();
            assert!(stations >= 10, "member {number} has {stations} of 64 stations");
        }
    });
}

#[test]
fn errors_name_the_interface_and_the_mend() {
    with_cable(|| {
        let text = |name: &str| PacketLink::open(name, Options::default()).unwrap_err().to_string();
        assert_eq!(text("kgv7"), "no interface kgv7: there are kgv0, kgv1, lo");
        assert!(text("a name that is too long").starts_with("no interface a name"));
        assert_eq!(text("lo"), "interface lo is down: bring it up with `ip link set dev lo up`");
        ip("link set dev kgv0 mtu 1099");
        assert_eq!(
            text("kgv0"),
            "interface kgv0 has an MTU of 1099, AoE needs 1100: set it with `ip link set dev kgv0 mtu 1500`"
        );
        ip("link set dev kgv0 mtu 1100");
        assert_eq!(open("kgv0").mtu(), 1_100);
    });
}

#[test]
fn a_tap_is_the_other_end_of_its_interface() {
    with_cable(|| {
        let mut tap = match TapLink::open("kgt0") {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(2) => {
                eprintln!("skipped: no /dev/net/tun");
                return;
            }
            other => other.unwrap_or_else(|e| panic!("{e}")),
        };
        let again = TapLink::open("kgt0").unwrap_err().to_string();
        assert_eq!(again, "tap kgt0 is in use by another process: choose another name or end that process");
        assert!(TapLink::open("kgv0").unwrap_err().to_string().ends_with("it is not a tap"));
        ip("link set dev kgt0 up");
        let mut host = open("kgt0");
        assert_ne!(tap.mac(), host.mac());
        let sent = frame(host.mac(), tap.mac(), AOE, b"to the host");
        assert!(send(&mut tap, &sent));
        let got = receive(&mut host).expect("through the tap");
        assert_eq!((got.len(), &got[..sent.len()]), (60, &sent[..]));
        let back = frame(tap.mac(), host.mac(), AOE, &[5; 200]);
        assert!(send(&mut host, &back));
        // The kernel may have said something of its own on the new interface.
        assert!((0..10).any(|_| receive(&mut tap) == Some(back.clone())));
    });
}
