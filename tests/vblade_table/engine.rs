//! What many requests, clients and disks cost, and what becomes of them when the network fails.

use std::fs::{self, File};

use kagero_aoe::wire::{Address, Ata, Command, Config, Header};
use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;

use crate::bed::{Answer, Bed, DISK, SECTORS, SERVER, ata, command, config};
use crate::cachestat;
use crate::namespace::{ip, with_cable};

/// vblade receives, reads and sends with a system call each.
#[test]
fn frames_take_less_than_a_system_call_each() {
    const REQUESTS: u32 = 256;
    with_cable(|| {
        let mut bed = Bed::new(1);
        // Until it knows that the page cache has them.
        for sector in 0..SECTORS {
            bed.read(sector);
        }
        let before = bed.reads_and_writes();
        bed.ask_together(REQUESTS, |sector| ata(command(0x24, sector, 2), &[]));
        let calls = bed.reads_and_writes() - before;
        println!("{calls} calls to read or to write");
        assert!(calls < u64::from(REQUESTS), "{calls} calls to read or to write for {REQUESTS} frames");
    });
}

/// vblade waits for the disk with each request.
#[test]
fn many_direct_requests_are_on_their_way_at_once() {
    const REQUESTS: u32 = 128;
    with_cable(|| {
        let mut bed = Bed::with(1, ",direct");
        let file = File::open(bed.image()).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let cached = || cachestat::pages(&file).map_or(0, |(cached, _)| cached);
        assert_eq!(cached(), 0);
        let before = bed.reads_and_writes();
        let answers = bed.ask_together(REQUESTS, |sector| ata(command(0x24, sector, 2), &[]));
        for (sector, answer) in (0..REQUESTS).zip(&answers) {
            assert!(answer.is_done());
            assert_eq!(answer.ata().1[4..8], sector.to_le_bytes());
        }
        // Of those that it doesn't wait for, the kernel counts none.
        let calls = bed.reads_and_writes() - before;
        println!("{calls} calls to read or to write");
        if bed.has_ring() {
            assert!(calls < u64::from(REQUESTS), "{calls} calls to read or to write for {REQUESTS} frames");
        } else {
            eprintln!("not looked at: threads read and write, since this kernel allows no io_uring");
        }
        let sector = bed.read(77);
        bed.write(77, &sector);
        bed.assert_serves();
        assert_eq!(cached(), 0, "nothing went through the page cache");
    });
}

/// vblade is a process a disk, and each looks at every frame.
#[test]
fn two_hundred_disks_are_one_small_process() {
    const COUNT: u8 = 200;
    with_cable(|| {
        let mut bed = Bed::new(COUNT);
        for round in 0..3 {
            for slot in 1..=COUNT {
                let header = Header { address: Address { slot, ..DISK }, ..bed.header(Command::Ata) };
                let answer = bed.ask_with(&header, &ata(command(0x24, round, 1), &[]));
                assert!(answer.is_done());
                assert_eq!(answer.frame().header.address.slot, slot);
                assert_eq!(answer.ata().1[..8], [slot, 0, 0, 0, round as u8, 0, 0, 0]);
            }
        }
        // One broadcast finds them all.
        let header = Header { address: Address::BROADCAST, ..bed.header(Command::Config) };
        bed.send(&header, &config(Config::query()));
        let mut slots: Vec<u8> =
            (0..COUNT).map(|_| bed.answer(header.tag..=header.tag).frame().header.address.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (1..=COUNT).collect::<Vec<u8>>());

        let status = fs::read_to_string(format!("/proc/{}/status", bed.server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        println!("{line}");
        assert!(kib < 64 << 10, "{line}");
    });
}

/// vblade ends.
#[test]
fn an_interface_that_goes_down_is_waited_for() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        for end in [SERVER, "kgv1"] {
            // Requests are on their way when the interface goes down: the server can receive them, but send no answer.
            bed.server.signal(Signal::STOP).unwrap();
            for sector in 0..20 {
                let header = bed.header(Command::Ata);
                bed.send(&header, &ata(command(0x24, sector, 8), &[]));
            }
            ip(&format!("link set dev {end} down"));
            bed.server.signal(Signal::CONT).unwrap();
            // These are lost on the way.
            for sector in 0..20 {
                let header = bed.header(Command::Ata);
                bed.send(&header, &ata(command(0x24, sector, 8), &[]));
            }
            ip(&format!("link set dev {end} up"));
            // A client asks again until the link is there.
            bed.ask_until_answered(&ata(command(0x24, 77, 1), &[]));
            bed.assert_serves();
        }
    });
}

/// vblade has room for the buffers that it announces, and so for one client that keeps to it.
#[test]
fn a_client_that_asks_for_more_than_announced_gets_all_its_answers() {
    const REQUESTS: u32 = 600;
    with_cable(|| {
        let mut bed = Bed::new(1);
        let answer = bed.ask(Command::Config, &config(Config::query()));
        let announced = Config::parse(answer.frame().argument).unwrap().buffer_count;
        assert!(announced >= 2 && u32::from(announced) * 4 < REQUESTS);
        let write = |sector| ata(Ata { write: true, ..command(0x34, sector, 16) }, &[3; 16 * 512]);
        // With each its own.
        assert!(bed.ask_together(REQUESTS, write).iter().all(Answer::is_done));
    });
}
