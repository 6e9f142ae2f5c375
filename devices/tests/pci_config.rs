//! Configuration space: masks, sizing, and where BARs decode.

use kagero_devices::pci::{Bar, BarChange, ConfigSpace, Identity, command, register};
use proptest::prelude::*;

fn function() -> ConfigSpace {
    ConfigSpace::new(Identity { vendor: 0x8086, device: 0x7010, class: 0x01_01_80, revision: 1 })
        .with_bar(0, Bar::Memory32 { size: 0x1000, prefetchable: false })
        .with_bar(1, Bar::Memory64 { size: 1 << 33, prefetchable: true })
        .with_bar(4, Bar::Io { size: 16 })
}

fn write(space: &mut ConfigSpace, offset: u8, value: u32) -> Vec<BarChange> {
    space.write(offset, &value.to_le_bytes()).collect()
}

#[test]
fn shows_identity_and_keeps_it() {
    let mut space = function().with_multifunction().with_subsystem(0x1af4, 0x1100);
    for (offset, value) in [(0x00, 0x7010_8086), (0x08, 0x0101_8001), (0x0c, 0x80 << 16), (0x2c, 0x1100_1af4)]
    {
        assert_eq!(space.dword(offset), value, "at {offset:#x}");
    }
    assert_eq!(write(&mut space, 0, !0), []);
    assert_eq!(space.dword(0), 0x7010_8086);
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let mut space = function();
    for bar in 0..6 {
        assert_eq!(
            write(&mut space, register::BAR0 + 4 * bar, !0),
            [],
            "nothing decodes before Command says so"
        );
    }
    let sizes: Vec<_> = (0..6).map(|bar| space.dword(register::BAR0 + 4 * bar)).collect();
    assert_eq!(sizes, [0xffff_f000, 0x0000_000c, 0xffff_fffe, 0, 0xffff_fff1, 0]);
}

#[test]
fn bars_move_as_values() {
    let mut space = function();
    assert_eq!(write(&mut space, 0x10, 0xe000_0000), []);
    assert_eq!(write(&mut space, 0x18, 0x10), []);
    assert_eq!(write(&mut space, 0x20, 0xc000), []);
    let all = (command::IO | command::MEMORY).into();
    let (e0, high, io) = (Some(0xe000_0000), Some(0x10_0000_0000), Some(0xc000));
    assert_eq!(
        write(&mut space, register::COMMAND, all),
        [
            BarChange { bar: 0, from: None, to: e0 },
            BarChange { bar: 1, from: None, to: high },
            BarChange { bar: 4, from: None, to: io }
        ]
    );
    assert_eq!(write(&mut space, 0x20, 0xc010), [BarChange { bar: 4, from: io, to: Some(0xc010) }]);
    assert_eq!(
        write(&mut space, 0x10, !0),
        [BarChange { bar: 0, from: e0, to: None }],
        "sizing while decoding"
    );
    assert_eq!(write(&mut space, 0x20, 0x1_0000), [BarChange { bar: 4, from: Some(0xc010), to: None }]);
    assert_eq!(space.reset().collect::<Vec<_>>(), [BarChange { bar: 1, from: high, to: None }]);
    assert_eq!(space.dword(0x20), 1);
}

#[test]
fn error_bits_clear_by_ones() {
    let mut space = function();
    space.set(register::STATUS + 1, 0x29);
    assert_eq!(space.write(register::STATUS, &[0xff, 0x08]).count(), 0);
    assert_eq!(space.word(register::STATUS), 0x2100);
}

#[test]
fn the_end_is_the_end() {
    let mut space = function().with_writable(0xff, &[0xff, 0xff]);
    assert_eq!(space.write(0xff, &[1, 2, 3, 4]).count(), 0);
    let mut out = [0; 4];
    space.read(0xff, &mut out);
    assert_eq!(out, [1, 0xff, 0xff, 0xff]);
}

proptest! {
    /// What a guest may not write never changes, and the changes told add up to where the BARs are.
    #[test]
    fn random_writes(writes in prop::collection::vec((any::<u8>(), any::<u32>(), 1usize..=4), 0..64)) {
        let mut space = function();
        let fresh = space.clone();
        let mut bars = [None; 6];
        for (offset, value, width) in writes {
            for BarChange { bar, from, to } in space.write(offset, &value.to_le_bytes()[..width]) {
                prop_assert_eq!(bars[usize::from(bar)], from);
                bars[usize::from(bar)] = to;
            }
        }
        for bar in 0..6 {
            prop_assert_eq!(space.decoded(bar), bars[usize::from(bar)]);
            if let (Some(base), Some(bar)) = (space.decoded(bar), space.bar(bar)) {
                prop_assert_eq!(base % bar.size(), 0);
            }
        }
        for offset in (0..=3).chain(0x08..=0x0b).chain(0x0e..=0x0f).chain(0x24..=0x3b).chain(0x3d..=0xff) {
            prop_assert_eq!(space.byte(offset), fresh.byte(offset));
        }
    }
}
