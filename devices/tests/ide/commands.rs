//! Each command that moves no data of the medium, and what it leaves in the registers.

use kagero_devices::ata::identify::{self, Position};
use kagero_devices::ata::{Opcode, Settings, bits::error};
use kagero_devices::storage::{Command, Operation, Request, Tag};
use kagero_devices::toy::{Order, Pace};

use crate::machine::{DATA, FAILED, Machine, READY, disk};

fn identify(m: &mut Machine) -> Vec<u16> {
    assert_eq!(m.command(0xec, 0, 0, 0), DATA);
    let words = m.words();
    assert_eq!(m.status(), READY);
    words
}

#[test]
fn identify_tells_what_there_is() {
    let sectors = 70_000;
    let mut m = Machine::with([sectors, 0, 0, 0], Pace::Whole);
    let words = identify(&mut m);
    assert_eq!(words[0] & 0x8080, 0, "an ATA disk, not removable");
    assert_eq!(u64::from(words[60]) | u64::from(words[61]) << 16, sectors);
    assert_eq!(u64::from(words[100]) | u64::from(words[101]) << 16, sectors);
    assert_eq!(words[47], 0x8010, "16 sectors a block");
    assert_eq!(words[49] & 0x0300, 0x0300, "LBA and DMA");
    assert_eq!(words[59], 0x0110);
    assert_eq!((words[63], words[88]), (0x0007, 0x203f), "Ultra DMA 5 is selected");
    assert_eq!(words[80] & 0x0100, 0x0100, "ATA8-ACS");
    assert_eq!((words[82], words[83], words[84]), (0x4069, 0x7400, 0x4040));
    assert_eq!((words[85], words[86], words[87]), (0x4069, 0xb400, 0x4040));
    assert_eq!(words[93] & 0xe001, 0x6001, "80-conductor cable");
    assert_eq!((words[105], words[169]), (8, 1), "TRIM");
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    assert_eq!(words[255] & 0xff, 0xa5);
    assert_eq!(bytes.fold(0u8, u8::wrapping_add), 0, "the checksum of word 255");
}

#[test]
fn identify_is_stable_but_for_the_modes() {
    let mut m = Machine::new();
    let before = identify(&mut m);
    assert_eq!(identify(&mut m), before);
    assert_eq!(m.command(0xef, 0x03, 0x22, 0), READY, "multiword DMA 2");
    let after = identify(&mut m);
    let changed: Vec<usize> = (0..256).filter(|n| before[*n] != after[*n]).collect();
    assert_eq!(changed, [63, 88, 255]);
    assert_eq!((after[63], after[88]), (0x0407, 0x003f));
    m.control(4);
    m.control(0);
    assert_eq!(identify(&mut m), after, "a software reset keeps them");
    assert_eq!(m.ide.reset().count(), 0);
    assert_eq!(identify(&mut m), before, "the machine's does not");
}

#[test]
fn trim_is_claimed_by_a_disk_that_has_it() {
    let mut without = disk("a", 100);
    without.trim = false;
    let data = identify::build(&without, &Settings::power_on(100), Position::Device0);
    assert_eq!((data[2 * 105], data[2 * 169]), (0, 0));
    let parsed = identify::parse(&data).expect("our own data");
    assert_eq!(parsed.disk, without);
}

#[test]
fn set_features_takes_what_is_there_and_aborts_the_rest() {
    let mut m = Machine::new();
    for (features, word, bit, on) in
        [(0x82, 85, 5, false), (0x02, 85, 5, true), (0x55, 85, 6, false), (0xaa, 85, 6, true)]
    {
        assert_eq!(m.command(0xef, features, 0, 0), READY);
        assert_eq!(identify(&mut m)[word] >> bit & 1 == 1, on, "{features:#x}");
    }
    for mode in [0x00, 0x01, 0x08, 0x0c, 0x20, 0x22, 0x40, 0x45] {
        assert_eq!(m.command(0xef, 0x03, mode, 0), READY, "mode {mode:#x}");
    }
    for mode in [0x02, 0x0d, 0x10, 0x23, 0x46, 0xff] {
        assert_eq!(m.command(0xef, 0x03, mode, 0), FAILED, "mode {mode:#x}");
    }
    for features in [0x00, 0x05, 0x10, 0x42, 0x66, 0x85, 0xcc, 0xff] {
        assert_eq!(m.command(0xef, features, 0, 0), FAILED, "{features:#x}");
        assert_eq!(m.inb(1), error::ABRT);
    }
}

#[test]
fn set_multiple_takes_powers_of_two_up_to_16() {
    let mut m = Machine::new();
    for count in 0..=255u8 {
        let good = [0, 1, 2, 4, 8, 16].contains(&count);
        assert_eq!(m.command(0xc6, 0, count, 0), if good { READY } else { FAILED }, "{count}");
        if good {
            let word = if count == 0 { 0 } else { 0x0100 | u16::from(count) };
            assert_eq!(identify(&mut m)[59], word);
        }
    }
    assert_eq!(m.command(0xc6, 0, 0, 0), READY);
    for code in [0xc4, 0xc5, 0x29, 0x39, 0xce] {
        assert_eq!(m.command(code, 0, 1, 0), FAILED, "{code:#x} while disabled");
        assert_eq!(m.inb(1), error::ABRT);
    }
}

#[test]
fn a_disk_is_no_packet_device() {
    let mut m = Machine::new();
    for code in [0x08, 0xa0, 0xa1] {
        assert_eq!(m.command(code, 0, 0, 0), FAILED, "{code:#x}");
        assert_eq!(m.inb(1), error::ABRT);
    }
}

#[test]
fn nop_aborts() {
    let mut m = Machine::new();
    assert_eq!(m.command(0x00, 0, 0x33, 0x44), FAILED);
    assert_eq!((m.inb(1), m.inb(2), m.inb(3)), (error::ABRT, 0x33, 0x44));
}

#[test]
fn recalibrate_and_seek_have_nothing_to_move() {
    let mut m = Machine::new();
    for code in (0x10..=0x1f).chain(0x70..=0x7f) {
        assert_eq!(m.command(code, 0, 0, 100), READY, "{code:#x}");
        assert!(m.intrq());
    }
    assert_eq!(m.command(0x70, 0, 0, 8_192), FAILED);
    assert_eq!(m.inb(1), error::IDNF);
}

#[test]
fn diagnostic_is_for_both() {
    let mut m = Machine::with([64, 64, 0, 0], Pace::Whole);
    m.issue(0xe5, 0, 0x99, 0x77);
    m.outb(6, 0xf0);
    m.outb(7, 0x90);
    assert!(m.intrq());
    for device in [0x00, 0x10] {
        assert_eq!((m.inb(1), m.inb(2), m.inb(3), m.inb(4), m.inb(5)), (1, 1, 1, 0, 0));
        assert_eq!(m.inb(6), device, "device 0 is selected by it");
        assert_eq!(m.inb(7), READY);
        m.outb(6, 0x10);
    }
    let mut alone = Machine::new();
    alone.outb(6, 0xb0);
    alone.outb(7, 0x90);
    assert!(alone.intrq(), "device 0 carries it out for an absent device 1");
    assert_eq!((alone.inb(6), alone.inb(7)), (0, READY));
}

#[test]
fn parameters_change_the_geometry() {
    let mut m = Machine::new();
    m.outb(2, 32);
    m.outb(6, 0xa3);
    m.outb(7, 0x91);
    assert_eq!(m.inb(7), READY);
    let words = identify(&mut m);
    assert_eq!([words[1], words[3], words[6]], [8, 16, 63], "the default stays what it was");
    assert_eq!(words[54..57], [64, 4, 32]);
    assert_eq!(u32::from(words[57]) | u32::from(words[58]) << 16, 64 * 4 * 32);
    assert_eq!(m.command(0x91, 0, 0, 0), FAILED, "no sectors a track");

    // Cylinder 3, head 2, sector 5.
    for (offset, value) in (2..).zip([1, 5, 3, 0, 0xa2]) {
        m.outb(offset, value);
    }
    m.outb(7, 0x20);
    m.settle();
    let lba = (3 * 4 + 2) * 32 + 4;
    assert_eq!(m.read_data(512), m.sectors(lba, 1));
    for (offset, value) in (2..).zip([1, 5, 3, 0, 0xa4]) {
        m.outb(offset, value);
    }
    m.outb(7, 0x20);
    assert_eq!((m.status(), m.inb(1)), (FAILED, error::IDNF), "there is no head 4");
}

#[test]
fn native_max_is_the_last_sector() {
    let mut m = Machine::new();
    assert_eq!(m.command(0xf8, 0, 0, 0), READY);
    assert_eq!((m.inb(3), m.inb(4), m.inb(5), m.inb(6)), (0xff, 0x1f, 0, 0xe0));
    m.issue(0x27, 0, 0, 0x00ff_ffff);
    assert_eq!((m.inb(3), m.inb(4), m.inb(5)), (0xff, 0x1f, 0));
    m.control(0x80);
    assert_eq!((m.inb(3), m.inb(4), m.inb(5)), (0, 0, 0));
}

#[test]
fn power_management_is_acknowledged() {
    let mut m = Machine::new();
    for (code, mode) in [(0xe0, 0x00), (0xe1, 0x80), (0xe2, 0x00), (0xe3, 0x80), (0xe6, 0x00)] {
        assert_eq!(m.command(code, 0, 0, 0), READY, "{code:#x}");
        assert!(m.intrq());
        assert_eq!(m.command(0xe5, 0, 0, 0), READY);
        assert_eq!(m.inb(2), mode, "after {code:#x}");
    }
    assert_eq!(m.command(0x40, 0, 1, 0), READY);
    assert_eq!(m.command(0xe5, 0, 0, 0), READY);
    assert_eq!(m.inb(2), 0xff, "active after work on the medium");
}

#[test]
fn freeze_lock_is_acknowledged() {
    let mut m = Machine::new();
    assert_eq!(m.command(0xf5, 0, 0, 0), READY);
}

#[test]
fn smart_answers_with_its_key() {
    const KEY: u32 = 0xc2_4f00;
    let mut m = Machine::new();
    for features in [0xd0, 0xd1] {
        assert_eq!(m.command(0xb0, features, 0, KEY), DATA);
        let data = m.read_data(512);
        assert_eq!(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum");
        assert_ne!(data[0], 0);
    }
    assert_eq!(m.command(0xb0, 0xda, 0, KEY), READY);
    assert_eq!((m.inb(4), m.inb(5)), (0x4f, 0xc2), "no threshold exceeded");
    assert_eq!(m.command(0xb0, 0xda, 0, 0), FAILED, "without the key");
    assert_eq!(m.command(0xb0, 0xd2, 0xf1, KEY), READY);
    assert_eq!(m.command(0xb0, 0xd2, 0x12, KEY), FAILED);
    assert_eq!(m.command(0xb0, 0xd4, 1, KEY), FAILED, "self-tests are not claimed");

    assert_eq!(m.command(0xb0, 0xd9, 0, KEY), READY);
    assert_eq!(identify(&mut m)[85] & 1, 0);
    for features in [0xd0, 0xd1, 0xd2, 0xd9, 0xda] {
        assert_eq!(m.command(0xb0, features, 0, KEY), FAILED, "{features:#x} while disabled");
    }
    assert_eq!(m.command(0xb0, 0xd8, 0, KEY), READY);
    assert_eq!(identify(&mut m)[85] & 1, 1);
    assert_eq!(m.command(0xb0, 0xda, 0, KEY), READY);
}

/// What reaches the disk, for the commands that move no data.
#[test]
fn flush_and_verify_reach_the_disk() {
    let mut m = Machine::new();
    let expect = [
        (0xe7, Operation::Flush),
        (0xea, Operation::Flush),
        (0x40, Operation::Verify { lba: 0x123, sectors: 256 }),
        (0x41, Operation::Verify { lba: 0x123, sectors: 256 }),
    ];
    for (n, (code, operation)) in (1u32..).zip(expect) {
        m.issue(code, 0, 0, 0x123);
        assert_eq!(m.status(), 0x80);
        let command = Command { tag: Tag(2 * n), disk: 0, operation };
        assert!(!m.intrq());
        m.settle();
        assert_eq!(m.disks.log.last(), Some(&Request::Start(command)));
        assert_eq!(m.inb(7), READY);
    }
    assert_eq!((m.inb(2), m.inb(3), m.inb(4)), (0, 0x22, 0x02), "the last sector, and none left");
    for (offset, older) in (2..).zip([1, 0, 0, 0]) {
        m.outb(offset, older);
    }
    m.issue(0x42, 0, 0, 0x10);
    m.settle();
    let Some(Request::Start(command)) = m.disks.log.last() else { panic!("a request") };
    assert_eq!(command.operation, Operation::Verify { lba: 0x10, sectors: 256 }, "a count of 0100h");
}

#[test]
fn verify_of_a_bad_sector_names_it() {
    let mut m = Machine::new();
    m.disks.bad = Some((0x105, error::UNC));
    assert_eq!(m.command(0x40, 0, 16, 0x100), FAILED);
    assert_eq!((m.inb(1), m.inb(2), m.inb(3), m.inb(4)), (error::UNC, 11, 0x05, 0x01));
    assert!(m.intrq());
}

#[test]
fn nothing_past_the_end_is_asked_for() {
    let mut m = Machine::new();
    for code in [0x20, 0x30, 0x40, 0xc4, 0xc5, 0xc8, 0xca] {
        assert_eq!(m.command(code, 0, 2, 8_191), FAILED, "{code:#x}");
        assert_eq!((m.inb(1), m.inb(3), m.inb(4)), (error::IDNF, 0x00, 0x20), "8,192 is not there");
        assert_eq!(m.command(code, 0, 1, 0x0fff_ffff), FAILED, "{code:#x}");
        assert_eq!((m.inb(1), m.inb(3), m.inb(6)), (error::IDNF, 0xff, 0xef));
    }
    assert!(m.disks.log.is_empty());
}

#[test]
fn trim_needs_its_bit_and_a_count_in_range() {
    let mut m = Machine::new();
    let mut trim = |features, count| m.command(0x06, features, count, 0);
    assert_eq!(trim(0, 1), FAILED, "not TRIM");
    assert_eq!(trim(1, 9), FAILED, "more than word 105 says");
    let mut driver = m.driver();
    let reply = m.run(&mut driver, Order::plain(Opcode::DataSetManagement, 1, 0));
    assert_eq!((reply.status, reply.error), (FAILED, error::ABRT), "none");

    let reply = m.run(&mut driver, Order::trim(&[(10, 5), (4_000, 1)]));
    assert!(reply.good(), "{reply:?}");
    assert!(m.sectors(10, 5).iter().chain(m.sectors(4_000, 1)).all(|byte| *byte == 0));
    assert!(m.sectors(15, 1).iter().any(|byte| *byte != 0));
}
