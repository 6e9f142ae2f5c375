//! The whole way of the data without a machine, on a virtual clock: a guest's driver, the IDE controller, initiators, a bad network, and a
//! target whose jobs end in random order. Every sector that is read is compared with what may be there, and the disks at the end.
//!
//! `cargo test -p kagero-aoe --test stack -- --nocapture` shows what happened.

mod contents;
mod guest;
mod server;
mod world;

use kagero_aoe::initiator::Statistics;
use world::{Setting, World};

const USUAL: &str = "loss=5%,duplicate=1%,reorder=2%,corrupt=0.5%,delay=50us,jitter=100us";

fn run(setting: &Setting, commands: u64) -> World {
    let begun = std::time::Instant::now();
    let mut world = World::new(setting);
    let start = world.now;
    world.commands(commands);
    let time = world.now - start;
    world.settle();
    for guest in &world.guests {
        guest.compare(&world.server);
    }

    let [primary, secondary] = world.guests.each_ref().map(|guest| guest.counts);
    let (done, failed) = (primary.done + secondary.done, primary.failed + secondary.failed);
    let reset = primary.reset + secondary.reset;
    assert_eq!(done + failed + reset, commands, "each command has ended once");
    let mib = |bytes: u64| bytes >> 20;
    let total = |count: fn(&Statistics) -> u64| world.total(count);
    let Setting { mtu, seed, .. } = setting;
    println!("MTU {mtu}, seed {seed}: {commands} commands, {failed} with an error and {reset} cut short");
    println!(
        "  {} MiB read and {} MiB written, in {time:.1?} on the virtual clock and {:.1?} on the wall's",
        mib(primary.bytes_read + secondary.bytes_read),
        mib(primary.bytes_written + secondary.bytes_written),
        begun.elapsed(),
    );
    println!(
        "  {} frames out, {} of them again; {} frames in, {} of them stale; {} commands held back; {} losses of a target",
        total(|s| s.frames_sent),
        total(|s| s.resends),
        total(|s| s.frames_received),
        total(|s| s.stale),
        total(|s| s.held_back),
        total(|s| s.losses),
    );
    println!("  {:?}", world.disasters);
    println!("  {:?}", world.network.forth.tally());
    println!("  {:?}", world.network.back.tally());
    world
}

/// All that can go wrong did.
fn check_that_it_was_hard(world: &World) {
    let disasters = world.disasters;
    assert!(disasters.resets > 0 && disasters.outages > 0 && disasters.hangs > 0 && disasters.crashes > 0);
    for tally in [world.network.forth.tally(), world.network.back.tally()] {
        let kinds = [tally.lost, tally.corrupted, tally.duplicated, tally.reordered];
        assert!(kinds.iter().all(|&count| count > 100), "{tally:?}");
    }
    let counts: [fn(&Statistics) -> u64; 4] = [|s| s.resends, |s| s.stale, |s| s.held_back, |s| s.losses];
    assert!(counts.iter().all(|count| world.total(count) > 0));
}

#[test]
fn frames_of_1500_bytes() {
    let setting = Setting { faults: USUAL, mtu: 1500, seed: 1, disasters: true };
    check_that_it_was_hard(&run(&setting, 100_000));
}

#[test]
fn jumbo_frames() {
    let setting = Setting { faults: USUAL, mtu: 9000, seed: 2, disasters: true };
    check_that_it_was_hard(&run(&setting, 100_000));
}

#[test]
fn one_seed_one_fate() {
    let fate = || {
        let world = run(&Setting { faults: USUAL, mtu: 9000, seed: 3, disasters: true }, 2_000);
        (world.now, world.network.forth.tally(), world.network.back.tally())
    };
    assert_eq!(fate(), fate());
}
