//! What vblade 25 does badly, point by point, done by `kagero serve`: the built program, asked with raw frames over a cable.
//!
//! Some points are of speed. No test measures time: here is what makes the difference, counted, and `cargo xtask bench target` measures, side by
//! side with vblade.
//!
//! | vblade 25 | the test |
//! |---|---|
//! | two legal frames abort it | [`two_legal_frames_do_not_end_it`] |
//! | mask and config read stale bytes beyond the frame | [`lists_and_strings_that_end_after_the_frame_are_refused`] |
//! | answers leak bytes of earlier frames | [`answers_of_60_bytes_hold_only_zeros_behind_their_own`] |
//! | FLUSH CACHE does not sync, FLUSH CACHE EXT is aborted | [`flushes_reach_the_medium_and_what_was_flushed_survives_a_kill`] |
//! | few commands, an empty IDENTIFY | [`all_commands_of_a_disk_and_a_complete_identify`] |
//! | CHECK POWER MODE, version, count 0, WRITE to broadcast | [`power_mode_version_count_and_broadcast_are_as_specified`] |
//! | a read, a pread and a write for each frame, one at a time | [`frames_take_less_than_a_system_call_each`]; `batches.rs` and `engine/tests.rs` of `kagero-target` |
//! | O_DIRECT: one request at a time | [`many_direct_requests_are_on_their_way_at_once`] |
//! | a process an export | [`two_hundred_disks_are_one_small_process`] |
//! | dies when the interface goes down or a send fails | [`an_interface_that_goes_down_is_waited_for`] |
//! | the receive buffer is for one client | [`a_client_that_asks_for_more_than_announced_gets_all_its_answers`] |

mod bed;
#[path = "../../aoe/target/tests/cachestat/mod.rs"]
mod cachestat;
#[path = "../../aoe/link/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};

use bed::{Answer, Bed, DISK, SECTORS, SERVER, ata, command, config};
use kagero_aoe::wire::{
    Address, Ata, Command, Config, ConfigCommand, DirectiveCommand, ErrorCode, Header, MacAddress,
    MaskCommand, MaskDirective, MaskError, MaskList, ReserveCommand, ReserveList,
};
use namespace::{ip, with_cable};
use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;

/// A mask list that is edited.
fn edit(directives: &[(DirectiveCommand, MacAddress)]) -> Vec<u8> {
    let directives = directives.iter().map(|&(command, mac)| MaskDirective { command, mac });
    let mut argument = vec![0; 4 + 8 * directives.len()];
    MaskList::encode(&mut argument, MaskCommand::Edit, MaskError::None, directives).unwrap();
    argument
}

/// vblade aborts: it shortens an empty list.
#[test]
fn two_legal_frames_do_not_end_it() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let own = bed.own_mac();
        for directive in [DirectiveCommand::Add, DirectiveCommand::Delete, DirectiveCommand::Delete] {
            let answer = bed.ask(Command::Mask, &edit(&[(directive, own)]));
            let frame = answer.frame();
            assert_eq!((frame.header.command, frame.header.error), (Command::Mask, None));
            let list = MaskList::parse(frame.argument).unwrap();
            assert_eq!(list.error, MaskError::None);
            assert_eq!(list.directives().len(), usize::from(directive == DirectiveCommand::Add));
        }
        bed.assert_serves();
    });
}

/// vblade takes the rest from its buffer, where an earlier frame was.
#[test]
fn lists_and_strings_that_end_after_the_frame_are_refused() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        // Something for the buffers to hold.
        let junk = bed.own_mac().0.repeat(1_000);
        for _ in 0..100 {
            let header = bed.header(Command::Other(0xf0));
            bed.send(&header, &junk[..5_000]);
        }
        let refused = |bed: &mut Bed, command, argument: &[u8]| {
            let answer = bed.ask(command, argument);
            assert_eq!(answer.frame().header.error, Some(ErrorCode::BadArgument), "{command:?}");
        };
        // A frame is filled up to 60 bytes: 28 behind the 8 of a query, 32 behind the 4 of a list.
        let mut set = config(Config { command: ConfigCommand::Set, string: b"ours", ..Config::query() });
        for length in [29u16, 1_024, 1_025, u16::MAX] {
            set[6..8].copy_from_slice(&length.to_be_bytes());
            refused(&mut bed, Command::Config, &set);
        }
        let mut list = edit(&[(DirectiveCommand::Add, MacAddress([2; 6]))]);
        for count in [5, 255] {
            list[3] = count;
            refused(&mut bed, Command::Mask, &list);
        }
        for count in [6, 255] {
            refused(&mut bed, Command::Reserve, &[1, count, 2, 2, 2, 2, 2, 2]);
        }

        let answer = bed.ask(Command::Config, &config(Config::query()));
        assert_eq!(Config::parse(answer.frame().argument).unwrap().string, b"");
        let answer = bed.ask(Command::Mask, &[0; 4]);
        assert_eq!(MaskList::parse(answer.frame().argument).unwrap().directives().len(), 0);
        let answer = bed.ask(Command::Reserve, &[0; 2]);
        assert_eq!(ReserveList::parse(answer.frame().argument).unwrap().macs().len(), 0);
        // A write whose data is not all there is none.
        let write = Ata { write: true, ..command(0x34, 77, 2) };
        assert_eq!(bed.ata(write, &[1; 1_023]).ata().0.feature, 0x04);
        bed.assert_serves();
    });
}

/// vblade sends what its buffer held.
#[test]
fn answers_of_60_bytes_hold_only_zeros_behind_their_own() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let reserve = |command| {
            let mut argument = [0; 2];
            ReserveList::encode(&mut argument, command, [].into_iter()).unwrap();
            argument.to_vec()
        };
        let requests = [
            (Command::Ata, ata(Ata { write: true, ..command(0x34, 5, 1) }, &[0xbb; 512]), 12),
            (Command::Ata, ata(command(0xea, 0, 0), &[]), 12),
            (Command::Ata, ata(command(0x24, SECTORS, 1), &[]), 12),
            (Command::Ata, ata(command(0xff, 0, 1), &[]), 12),
            (Command::Config, config(Config::query()), 8),
            (Command::Mask, vec![0; 4], 4),
            (Command::Reserve, reserve(ReserveCommand::Set), 2),
            (Command::Other(0xf0), vec![], 0),
        ];
        for (number, (command_code, argument, length)) in requests.into_iter().enumerate() {
            // Through all of the server's buffers.
            for sector in (0..2_040).step_by(8) {
                assert!(bed.ata(command(0x24, sector, 8), &[]).0[60..].contains(&0xaa));
            }
            let answer = bed.ask(command_code, &argument);
            assert_eq!(answer.0.len(), 60, "request {number}");
            assert!(
                answer.0[24 + length..].iter().all(|&byte| byte == 0),
                "request {number}: {:x?}",
                answer.0
            );
        }
    });
}

/// vblade answers FLUSH CACHE and does nothing, and aborts FLUSH CACHE EXT.
#[test]
fn flushes_reach_the_medium_and_what_was_flushed_survives_a_kill() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let file = File::open(bed.image()).unwrap();
        for (round, flush) in [(1u8, 0xe7), (2, 0xea)] {
            for sector in (0..SECTORS).step_by(8) {
                bed.write(sector, &[round; 8 * 512]);
            }
            // Pages that are only in the cache: some, unless the kernel was quick, and none.
            let unwritten = || cachestat::unwritten(&file);
            if let Err(error) = unwritten() {
                eprintln!("not looked at: this kernel does not tell what is written ({error})");
            }
            assert!(bed.ata(command(flush, 0, 0), &[]).is_done());
            assert_eq!(unwritten().unwrap_or(0), 0, "after {flush:02x}");
            if flush == 0xea {
                bed.kill();
            }
            assert!(fs::read(bed.image()).unwrap().iter().all(|&byte| byte == round));
        }
    });
}

/// vblade has only the commands of PIO, and says of itself next to nothing.
#[test]
fn all_commands_of_a_disk_and_a_complete_identify() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let answer = bed.ata(command(0xec, 0, 1), &[]);
        let data: [u8; 512] = answer.ata().1[..512].try_into().unwrap();
        let words: Vec<u16> = data.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        for word in [53, 63, 64, 65, 66, 67, 68, 80, 82, 83, 84, 85, 86, 87, 88, 255] {
            assert_ne!(words[word], 0, "word {word}");
        }
        assert_eq!(data.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)), 0, "checksum in word 255");

        // READ and WRITE by DMA and MULTIPLE, of both address lengths, and writes that go through the cache.
        for (round, (write, read)) in [
            (0x30, 0x20),
            (0x34, 0x24),
            (0xca, 0xc8),
            (0x35, 0x25),
            (0xc5, 0xc4),
            (0x39, 0x29),
            (0x3d, 0x25),
            (0xce, 0x29),
        ]
        .into_iter()
        .enumerate()
        {
            let data = [round as u8 + 1; 512];
            let registers = |code| Ata { extended: false, ..command(code, 9, 1) };
            assert!(bed.ata(Ata { write: true, ..registers(write) }, &data).is_done(), "write {write:02x}");
            let answer = bed.ata(registers(read), &[]);
            assert!(answer.is_done() && answer.ata().1[..512] == data, "read {read:02x}");
        }
        // VERIFY, SET FEATURES (UDMA 5, then no write cache), SET MULTIPLE, IDLE, STANDBY, SMART STATUS.
        for (code, feature, count) in [
            (0x40, 0, 8),
            (0x42, 0, 8),
            (0xef, 0x03, 0x45),
            (0xef, 0x82, 0),
            (0xef, 0x02, 0),
            (0xc6, 0, 16),
            (0xe3, 0, 0),
            (0xe0, 0, 0),
        ] {
            let registers = Ata { extended: false, feature, ..command(code, 0, count) };
            assert!(bed.ata(registers, &[]).is_done(), "{code:02x} with {feature:02x}");
        }
        // TRIM of eight sectors from 16 on.
        let mut ranges = (16u64 | 8 << 48).to_le_bytes().to_vec();
        ranges.resize(512, 0);
        assert!(bed.ata(Ata { write: true, feature: 1, ..command(0x06, 0, 1) }, &ranges).is_done());
        assert_eq!(bed.read(17), [0; 512]);
        bed.assert_serves();
    });
}

/// vblade: no answer; no look; success; a write.
#[test]
fn power_mode_version_count_and_broadcast_are_as_specified() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let power = bed.ata(Ata { extended: false, ..command(0xe5, 0, 1) }, &[]);
        assert!(power.is_done());
        assert_eq!(power.ata().0.count, 0xff, "active or idle");

        let header = Header { version: 2, ..bed.header(Command::Config) };
        let answer = bed.ask_with(&header, &config(Config::query()));
        assert_eq!(answer.frame().header.error, Some(ErrorCode::UnsupportedVersion));
        assert_eq!(answer.frame().header.version, 1);

        for code in [0x20, 0x24, 0x30, 0x34] {
            let registers = Ata { write: code >= 0x30, ..command(code, 77, 0) };
            let after = bed.ata(registers, &[9; 512]).ata().0;
            assert_eq!((after.command & 1, after.feature), (1, 0x04), "{code:02x} of no sectors");
        }

        let write = ata(Ata { write: true, ..command(0x34, 77, 1) }, &[9; 512]);
        for address in [Address::BROADCAST, Address { slot: 0xff, ..DISK }, Address { shelf: 0xffff, ..DISK }]
        {
            for destination in [MacAddress::BROADCAST, bed.header(Command::Ata).destination] {
                let header = Header { address, destination, ..bed.header(Command::Ata) };
                assert!(!bed.ask_with(&header, &write).is_done(), "a write to {address}");
            }
        }
        bed.assert_serves();
    });
}

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
