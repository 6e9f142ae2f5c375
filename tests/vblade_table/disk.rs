//! What a disk does, keeps, and can become.

use std::fs::{self, File};

use kagero_aoe::wire::{
    Ata, Command, Config, ConfigCommand, DirectiveCommand, MaskList, ReserveCommand, ReserveList,
};

use crate::bed::{Bed, SECTORS, command, config, edit};
use crate::cachestat;
use crate::namespace::with_cable;

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

/// vblade has the size that it began with, and forgets everything.
#[test]
fn disks_grow_and_what_clients_set_survives() {
    with_cable(|| {
        let mut bed = Bed::new(1);
        let own = bed.own_mac();
        let set = Config { command: ConfigCommand::ForceSet, string: b"ours", ..Config::query() };
        bed.ask(Command::Config, &config(set));
        bed.ask(Command::Mask, &edit(&[(DirectiveCommand::Add, own)]));
        let mut reserve = [0; 2 + 6];
        ReserveList::encode(&mut reserve, ReserveCommand::Set, [own].into_iter()).unwrap();
        bed.ask(Command::Reserve, &reserve);

        bed.kill();
        bed.restart();
        let answer = bed.ask(Command::Config, &config(Config::query()));
        assert_eq!(Config::parse(answer.frame().argument).unwrap().string, b"ours");
        let answer = bed.ask(Command::Mask, &[0; 4]);
        let mask = MaskList::parse(answer.frame().argument).unwrap();
        assert!(mask.directives().map(|directive| directive.mac).eq([own]));
        let answer = bed.ask(Command::Reserve, &[0; 2]);
        assert!(ReserveList::parse(answer.frame().argument).unwrap().macs().eq([own]));

        assert!(!bed.ata(command(0x24, SECTORS, 1), &[]).is_done(), "the disk ends before");
        bed.target("resize 7.1 2M");
        assert_eq!(bed.read(2 * SECTORS - 1), [0; 512]);
        let identify = bed.ata(command(0xec, 0, 1), &[]);
        assert_eq!(identify.ata().1[200..204], (2 * SECTORS).to_le_bytes(), "words 100 and 101");
        bed.assert_serves();
    });
}
