//! What frames may say, and what answers hold.

use kagero_aoe::wire::{
    Address, Ata, Command, Config, ConfigCommand, DirectiveCommand, ErrorCode, Header, MacAddress, MaskError,
    MaskList, ReserveCommand, ReserveList,
};

use crate::bed::{Bed, DISK, SECTORS, ata, command, config, edit};
use crate::namespace::with_cable;

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
