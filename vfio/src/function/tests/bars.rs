//! Registers that come and go in the guest's address space.

use super::*;
use crate::mock::Mapped;
use crate::{Decode, Region, Space};

const AREA: [u64; 3] = [0, 0x2000, 0x4000];

#[test]
fn registers_are_mapped_after_the_hardware_decodes_and_taken_away_before_it_stops() {
    let mut guest = Guest::new();
    assert!(!guest.write32(BAR0, 0xfe00_0000));
    assert_eq!(guest.lines(), [""; 0]);
    assert!(guest.write16(COMMAND, command::MEMORY));
    // The table's page and that of the pending bits stay with exits.
    let on =
        ["write Config 0x4 [02, 00]", "map BAR 0 + 0x0 at 0xfe000000", "map BAR 0 + 0x4000 at 0xfe004000"];
    assert_eq!(guest.lines(), on);
    assert!(guest.write16(COMMAND, 0));
    assert_eq!(guest.lines(), ["unmap 0xfe000000", "unmap 0xfe004000", "write Config 0x4 [00, 00]"]);
}

#[test]
fn registers_follow_a_bar_that_moves() {
    let mut guest = Guest::configured();
    assert!(guest.write32(BAR0, 0xfd00_0000));
    let moved = [
        "unmap 0xfe000000",
        "unmap 0xfe004000",
        "map BAR 0 + 0x0 at 0xfd000000",
        "map BAR 0 + 0x4000 at 0xfd004000",
    ];
    assert_eq!(guest.lines(), moved);
    assert!(guest.write32(BAR0 + 20, 9));
    assert_eq!(guest.lines(), ["unmap 0x800000000", "map BAR 4 + 0x0 at 0x900000000"]);
}

#[test]
fn decodes_tells_all_ranges_and_where_they_lead() {
    let mut guest = Guest::configured();
    let decode = |space, first, length, region| Decode { space, first, length, region };
    let mut all = vec![
        decode(Space::Memory, 0xfe00_0000, 0x1_0000, Region::Bar(0)),
        decode(Space::Io, 0xc000, 32, Region::Bar(2)),
        decode(Space::Memory, 0x8_0000_0000, 0x10_0000, Region::Bar(4)),
    ];
    assert_eq!(guest.function.decodes(), all);
    assert!(guest.write32(0x30, 0xfd80_0001));
    all.push(decode(Space::Memory, 0xfd80_0000, 0x8000, Region::Rom));
    assert_eq!(guest.function.decodes(), all);
    assert!(!guest.write16(COMMAND, command::IO | command::MEMORY));
    assert_eq!(guest.function.decodes(), all);
}

#[test]
fn the_rom_is_read_once_when_it_is_first_turned_on() {
    let mut guest = Guest::configured();
    guest.write32(0x30, 0xfd80_0000);
    assert_eq!(guest.lines(), [""; 0]);
    guest.write32(0x30, 0xfd80_0001);
    assert_eq!(guest.lines(), ["read Rom 0x0", "map BAR 6 + 0x0 at 0xfd800000"]);
    guest.function.write(Region::Rom, 0, &[0; 4]);
    guest.write32(0x30, 0);
    guest.write32(0x30, 0xfd90_0001);
    assert_eq!(guest.lines(), ["unmap 0xfd800000", "map BAR 6 + 0x0 at 0xfd900000"]);
}

#[test]
fn nothing_is_mapped_while_the_function_sleeps() {
    let mut guest = Guest::configured();
    assert!(guest.write16(Spec::POWER + 4, 3));
    let asleep = guest.lines();
    assert_eq!(asleep[..3], ["unmap 0xfe000000", "unmap 0xfe004000", "unmap 0x800000000"]);
    assert!(asleep[3].starts_with("write Config 0x44 "), "{asleep:?}");
    assert_eq!(guest.function.decodes(), []);
    assert!(guest.write16(Spec::POWER + 4, 0));
    let awake = guest.lines();
    assert!(awake[0].starts_with("write Config 0x44 "), "{awake:?}");
    assert_eq!(awake.len(), 4);
}

#[test]
fn sizing_without_turning_off_gives_the_registers_back() {
    let mut guest = Guest::configured();
    let before = guest.bench.mapped();
    guest.write32(BAR0, 0xffff_ffff);
    guest.write32(BAR0, 0xfe00_0000);
    assert_eq!(guest.bench.mapped(), before);
    // Half of a 64-bit BAR: where no memory can be.
    guest.write32(BAR0 + 20, 0xffff_ffff);
    assert!(guest.bench.mapped().iter().all(|mapped| mapped.bar == 0));
    guest.write32(BAR0 + 20, 8);
    assert_eq!(guest.bench.mapped(), before);
    let _ = guest.lines();
    let bar0 = |start: u64, length| Mapped { gpa: 0xfe00_0000 + start, length, bar: 0, start };
    assert_eq!(before[..2], [bar0(AREA[0], AREA[1]), bar0(AREA[2], 0xc000)]);
}

#[test]
fn two_bars_in_one_place_leave_one_with_exits_until_they_part() {
    let mut guest = Guest::configured();
    guest.write32(BAR0 + 20, 0);
    guest.write32(BAR0 + 16, 0xfe00_0000);
    assert!(guest.bench.mapped().iter().all(|mapped| mapped.bar == 0));
    let _ = guest.lines();
    guest.write32(BAR0, 0xfd00_0000);
    assert!(guest.bench.mapped().iter().any(|mapped| mapped.bar == 4));
    let _ = guest.lines();
}

#[test]
fn what_is_not_mapped_reaches_the_hardware_and_the_table_does_not() {
    let mut guest = Guest::configured();
    let mut out = [0; 4];
    guest.function.read(Region::Bar(0), 0x2080, &mut out);
    assert_eq!((out, guest.lines()), ([0x5a; 4], vec!["read Bar(0) 0x2080".to_owned()]));
    guest.function.write(Region::Bar(2), 4, &[1, 2]);
    assert_eq!(guest.lines(), ["write Bar(2) 0x4 [01, 02]"]);
    guest.function.write(Region::Bar(0), 0x2000, &[4, 0, 0xe0, 0xfe]);
    guest.function.read(Region::Bar(0), 0x2000, &mut out);
    assert_eq!(out, [4, 0, 0xe0, 0xfe]);
    // Across the border, past the end, or nowhere at all.
    for (region, offset) in
        [(Region::Bar(0), 0x207e), (Region::Bar(0), 0xffff), (Region::Bar(1), 0), (Region::Bar(9), 0)]
    {
        guest.function.write(region, offset, &[0; 4]);
        guest.function.read(region, offset, &mut out);
        assert_eq!(out, [0xff; 4]);
    }
    guest.function.read(Region::Rom, u64::MAX, &mut out);
    assert_eq!(guest.lines(), [""; 0]);
}
