//! Finding the target and its disk.

use crate::model::*;
use crate::world::World;
use kagero_aoe::Instant;
use kagero_aoe::initiator::Event;
use kagero_aoe::wire::*;
use kagero_devices::ata::identify::NotADisk;
use std::time::Duration;

#[test]
fn tells_the_disk_once() {
    let mut world = World::new("delay=100us", 1, Target::new(1000), |_| {}).attach();
    world.run_for(Duration::from_secs(10));
    let [Event::Ready(disk)] = &world.events[..] else { panic!("{:?}", world.events) };
    assert_eq!((disk.sectors, &disk.serial[..], disk.trim), (1000, "MODEL1", true));
    assert_eq!(world.initiator.target_mac(), Some(SERVER));
    assert_eq!(world.initiator.sectors_per_frame(), Some(2));
    let statistics = world.initiator.statistics();
    assert_eq!((statistics.frames_sent, statistics.frames_received), (2, 2));
    assert_eq!(statistics.round_trip.min(), Duration::from_micros(200));
}

#[test]
fn asks_again_and_less_often_while_there_is_no_answer() {
    let mut world = World::new("", 1, Target::new(1000), |_| {});
    world.dead = true;
    world.run_for(Duration::from_secs(60));
    let sent = world.initiator.statistics().frames_sent;
    assert!((60..70).contains(&sent), "{sent}");
    world.dead = false;
    world.attach();
}

#[test]
fn an_announcement_is_as_good_as_an_answer() {
    let mut world = World::new("", 1, Target::new(1000), |_| {});
    assert!(world.transmit().is_some() && world.transmit().is_none());
    // What a target broadcasts unasked when it starts.
    let unasked = Header::request(CLIENT, MacAddress::BROADCAST, ADDRESS, Command::Config, 0);
    let header = Header { destination: MacAddress::BROADCAST, ..unasked.answer(SERVER, ADDRESS) };
    let mut frame = [0; 60];
    encode(&mut frame, &header, |out| Config { buffer_count: 8, ..Config::query() }.encode(out)).unwrap();
    world.deliver(&frame);
    let identify = world.transmit().unwrap();
    let frame = Frame::parse(&identify).unwrap();
    assert_eq!(frame.header.destination, SERVER);
    assert_eq!(Ata::parse(frame.argument).unwrap().0.command, 0xec);
}

#[test]
fn the_window_begins_at_the_buffer_count() {
    for (buffer_count, expected) in [(0, 1), (1, 1), (16, 16), (1000, 256)] {
        let target = Target { buffer_count, ..Target::new(10_000) };
        let mut world = World::new("delay=1ms", 1, target, |_| {}).attach();
        world.read(0, 4096);
        assert_eq!(std::iter::from_fn(|| world.transmit()).count(), expected);
    }
}

#[test]
fn frames_are_as_long_as_both_ends_take() {
    for (mtu, sectors_per_frame, expected) in [
        (1500, 0, 2),
        (1500, 17, 2),
        (9000, 17, 17),
        (9000, 4, 4),
        (4200, 17, 8),
        (9000, 2, 2),
        (1100, 17, 2),
        (1000, 2, 1),
    ] {
        let target = Target { sectors_per_frame, ..Target::new(1000) };
        let world = World::new("", 1, target, |config| config.mtu = mtu).attach();
        assert_eq!(world.initiator.sectors_per_frame(), Some(expected), "{mtu} {sectors_per_frame}");
    }
}

#[test]
fn long_frames_that_the_path_loses_are_given_up() {
    for (path, expected) in [(1500, 2), (5000, 8), (3000, 4), (9000, 17)] {
        let target = Target { sectors_per_frame: 17, mtu: path, ..Target::new(1000) };
        let mut world = World::new("delay=100us", 1, target, |config| config.mtu = 9000);
        let begin = world.now;
        world = world.attach();
        assert_eq!(world.initiator.sectors_per_frame(), Some(expected), "{path}");
        assert!(world.now - begin < Duration::from_secs(2), "{path} {:?}", world.now - begin);
        let tag = world.read(0, 100);
        world.finish(tag);
        assert_eq!(world.initiator.statistics().window, 16);
    }
}

#[test]
fn a_disk_smaller_than_a_long_frame() {
    let target = Target { sectors_per_frame: 17, ..Target::new(5) };
    let mut world = World::new("", 1, target, |config| config.mtu = 9000).attach();
    let tag = world.read(0, 5);
    world.finish(tag);
}

#[test]
fn a_disk_that_is_not_available_yet() {
    let target = Target { refuse: Some(ErrorCode::DeviceUnavailable), ..Target::new(1000) };
    let mut world = World::new("delay=100us", 1, target, |_| {});
    world.run_for(Duration::from_secs(20));
    assert!(!world.initiator.is_attached() && world.events.is_empty());
    let statistics = world.initiator.statistics();
    assert!((10..200).contains(&statistics.refused), "{statistics:?}");
    world.target.refuse = None;
    world.attach();
}

#[test]
fn what_is_no_disk_is_told() {
    let mut target = Target::new(1000);
    target.identity[1] = 0x80;
    target.identity[510..].fill(0);
    let mut world = World::new("", 1, target, |_| {});
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.events, [Event::Unusable(NotADisk::Packet)]);
    world.target.identify(1000, "MODEL1");
    world.attach();
}

#[test]
fn only_its_own_target_is_believed() {
    let mut world = World::new("", 1, Target::new(1000), |_| {});
    let query = world.transmit().unwrap();
    let good = world.target.handle(&query).unwrap();
    let spoil: [fn(&mut Vec<u8>); 8] = [
        |frame| frame[0] ^= 4,      // for another station
        |frame| frame[6] |= 1,      // from a group
        |frame| frame[12] = 8,      // another protocol
        |frame| frame[14] = 0x28,   // version 2
        |frame| frame[14] = 0x10,   // a request
        |frame| frame[14] = 0x1c,   // an error
        |frame| frame[18] = 2,      // another slot
        |frame| frame.truncate(31), // too short
    ];
    for spoil in spoil {
        let mut frame = good.clone();
        spoil(&mut frame);
        world.deliver(&frame);
        assert_eq!(world.transmit(), None);
    }
    world.deliver(&good);
    assert!(world.transmit().is_some());
    assert_eq!(world.now, Instant::from_nanos(1_000_000_000));
}
