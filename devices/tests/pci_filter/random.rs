//! Any function, and any guest.

use kagero_devices::pci::filter::Outcome;
use kagero_devices::pci::{Bar, Filter, ROM};
use proptest::prelude::*;

use crate::dumps::{self, Dump};
use crate::guest::Guest;

fn bar() -> impl Strategy<Value = Option<Bar>> {
    let prefetchable = any::<bool>;
    prop::option::of(prop_oneof![
        (0u32..32).prop_map(|bits| Bar::Io { size: 1 << bits }),
        (0u32..32, prefetchable())
            .prop_map(|(bits, prefetchable)| Bar::Memory32 { size: 1 << bits, prefetchable }),
        (0u32..64, prefetchable())
            .prop_map(|(bits, prefetchable)| Bar::Memory64 { size: 1 << bits, prefetchable }),
        any::<u32>().prop_map(|size| Bar::Memory32 { size, prefetchable: false }),
    ])
}

prop_compose! {
    /// One of ours, with a piece of nonsense now and then; or nonsense with a list in it.
    fn dump()(
        sane in prop::option::of(0..5usize),
        length in prop_oneof![Just(256usize), Just(4096), 0usize..600],
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        standard in prop::collection::vec((16u8..64, 0u8..0x17, 16u8..64), 0..12),
        extended in prop::collection::vec((0x40u16..0x400, 0u16..0x34, 0x40u16..0x400), 0..12),
        bars in prop::array::uniform6(bar()),
        rom in any::<u32>(),
    ) -> Dump {
        if let Some(sane) = sane {
            let mut dump = dumps::all()[sane].clone();
            // From the status register on: who it is stays.
            for (at, value) in noise.iter().take(4) {
                let at = 4 + at.index(dump.config.len() - 4);
                dump.config[at] = *value;
            }
            return dump;
        }
        let mut config = vec![0; 4096];
        for (at, value) in &noise {
            config[at.index(4096)] = *value;
        }
        config[6] |= 0x10;
        config[0x34] = standard.first().map_or(0, |first| 4 * first.0);
        for (at, id, next) in standard {
            let at = 4 * usize::from(at);
            (config[at], config[at + 1]) = (id, 4 * next);
        }
        for (i, (at, id, next)) in extended.into_iter().enumerate() {
            let at = if i == 0 { 0x100 } else { 4 * usize::from(at) };
            let header = u32::from(id) | 1 << 16 | u32::from(next) << 22;
            config[at..at + 4].copy_from_slice(&header.to_le_bytes());
        }
        config.truncate(length);
        Dump { config, bars, rom }
    }
}

/// What a guest does.
#[derive(Clone, Debug)]
enum Act {
    Write(u16, Vec<u8>),
    /// Linux's way to size a BAR.
    Size(u8),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let offset = prop_oneof![0u16..0x40, 0u16..0x100, 0u16..0x1010, any::<u16>()];
    prop_oneof![
        20 => (offset, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(offset, data)| Act::Write(offset, data)),
        4 => (0u8..7).prop_map(Act::Size),
        1 => Just(Act::Reset),
    ]
}

/// Which bits of a byte are not the hardware's: the guest reads them the same whatever it says.
fn ours(filter: &Filter, offset: u16) -> (u8, u8) {
    let (mut zeros, mut ones) = ([0], [0xff]);
    filter.read(offset, &mut zeros);
    filter.read(offset, &mut ones);
    (!(zeros[0] ^ ones[0]), zeros[0])
}

/// Of a write of `data`, the hardware gets its own bits and nothing else.
fn check_forwards(guest: &Guest, offset: u16, data: &[u8], outcome: &Outcome) {
    let mut sent = std::collections::BTreeMap::new();
    for forward in &outcome.forwards {
        for (at, byte) in (forward.offset..).zip(forward.data()) {
            assert_eq!(sent.insert(at, *byte), None, "once");
        }
    }
    for (at, byte) in (offset..=u16::MAX).zip(data) {
        let (mask, value) = ours(&guest.filter, at);
        let expected = (mask != 0xff).then_some((byte & !mask) | (value & mask));
        assert_eq!(sent.remove(&at), expected, "at {at:#x}");
    }
    assert!(sent.is_empty(), "{sent:x?}");
}

/// Who follows the outcomes has the right view.
#[derive(Debug, Default, PartialEq)]
struct Followed {
    bars: [Option<u64>; 7],
    command: u16,
    power: u8,
}

impl Followed {
    fn follow(&mut self, outcome: &Outcome) {
        for change in &outcome.bars {
            let place = &mut self.bars[usize::from(change.bar)];
            assert!(*place == change.from && change.from != change.to, "{change:?}");
            *place = change.to;
        }
        if let Some(change) = outcome.command {
            assert_eq!(std::mem::replace(&mut self.command, change.to), change.from);
        }
        if let Some(change) = outcome.power {
            assert_eq!(std::mem::replace(&mut self.power, change.to), change.from);
        }
    }

    fn of(filter: &Filter) -> Self {
        let bars = std::array::from_fn(|bar| filter.decoded(bar as u8));
        Followed { bars, command: filter.command(), power: filter.power_state() }
    }
}

/// A BAR of which the size is what its guest finds; where there is none, zero.
fn check_size(guest: &mut Guest, bar: u8) {
    let offset = if bar == ROM { 0x30 } else { 0x10 + 4 * u16::from(bar) };
    let low = guest.size(offset);
    let Some(asked) = guest.filter.bar(bar) else {
        let upper = bar.checked_sub(1).and_then(|below| guest.filter.bar(below));
        assert!(low == 0 || matches!(upper, Some(Bar::Memory64 { .. })), "{bar}: {low:x}");
        return;
    };
    let size = match asked {
        Bar::Io { .. } => u64::from(low & !3).wrapping_neg() as u32 as u64,
        Bar::Memory32 { .. } => u64::from((low & !0xf).wrapping_neg()),
        Bar::Memory64 { .. } => {
            let high = guest.size(offset + 4);
            (u64::from(high) << 32 | u64::from(low & !0xf)).wrapping_neg()
        }
    };
    assert_eq!(size, asked.size(), "{asked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_it_is_and_whatever_is_done(dump in dump(), acts in prop::collection::vec(act(), 0..60)) {
        let mut guest = Guest::new(&dump);
        let (standard, extended) = (guest.capabilities(), guest.extended());
        // What a passed-through function must never show.
        prop_assert!(!standard.iter().any(|(_, id)| [0x02, 0x08, 0x0f, 0x14].contains(id)), "{:x?}", standard);
        prop_assert!(
            !extended.iter().any(|(_, id)| [0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x13, 0x15, 0x1b, 0x24].contains(id)),
            "{:x?}", extended
        );
        let mut followed = Followed::default();
        for act in acts {
            match act {
                Act::Write(offset, data) => {
                    let messages = (guest.filter.msi(), guest.filter.msix());
                    let outcome = guest.write(offset, &data);
                    check_forwards(&guest, offset, &data, &outcome);
                    followed.follow(&outcome);
                    prop_assert_eq!(outcome.msi, messages.0 != guest.filter.msi());
                    prop_assert_eq!(outcome.msix, messages.1 != guest.filter.msix());
                }
                Act::Size(bar) => {
                    check_size(&mut guest, bar);
                    followed = Followed::of(&guest.filter);
                }
                Act::Reset => {
                    let outcome = guest.filter.reset();
                    guest.carry_out(&outcome);
                    followed.follow(&outcome);
                    prop_assert_eq!(Followed::of(&guest.filter), Followed::default());
                }
            }
            prop_assert_eq!(&Followed::of(&guest.filter), &followed);
            prop_assert_eq!(guest.capabilities(), standard.clone());
            prop_assert_eq!(guest.extended(), extended.clone());
        }
    }
}
