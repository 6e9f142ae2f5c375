//! A passed-through function: what it says of itself may be nonsense, and its guest does as it likes.

use kagero_devices::pci::filter::{MsiX, Outcome};
use kagero_devices::pci::{Bar, Filter, Found, MsiXTable, ROM, VectorChange};
use kagero_devices::register::Fault;

use crate::device::{Device, Surroundings, exercise};
use crate::input::Input;

/// The first bytes of `data` say what the function is like; the rest is what its guest does.
///
/// # Panics
/// When the guest reaches what it should not, or is told other things than who follows what comes of its accesses.
pub fn passthrough(data: &[u8]) {
    let mut input = Input::new(data);
    let function = Function::new(&mut input);
    exercise(function, input);
}

/// What is never shown: AGP, HyperTransport, IOMMUs, enhanced allocation.
const NEVER: [u8; 5] = [0x02, 0x08, 0x0e, 0x0f, 0x14];
/// Access control, ARI, address translation, SR-IOV, MR-IOV, page requests, resizable BARs, address spaces.
const NEVER_EXTENDED: [u16; 9] = [0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x13, 0x15, 0x1b, 0x24];

#[derive(Clone)]
struct Function {
    /// Keeps whatever reaches it.
    hardware: Vec<u8>,
    filter: Filter,
    /// What the guest found at first.
    lists: (Vec<u8>, Vec<u16>),
    vectors: Option<(MsiX, MsiXTable)>,
    followed: Followed,
}

/// The view of who follows the outcomes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Followed {
    bars: [Option<u64>; 7],
    command: u16,
    power: u8,
}

impl Followed {
    fn of(filter: &Filter) -> Self {
        let bars = std::array::from_fn(|bar| filter.decoded(bar as u8));
        Followed { bars, command: filter.command(), power: filter.power_state() }
    }

    fn follow(&mut self, outcome: &Outcome) {
        for change in &outcome.bars {
            let known = std::mem::replace(&mut self.bars[usize::from(change.bar)], change.to);
            assert!(known == change.from && change.from != change.to, "{change:?}");
        }
        if let Some(change) = outcome.command {
            assert_eq!(std::mem::replace(&mut self.command, change.to), change.from);
        }
        if let Some(change) = outcome.power {
            assert_eq!(std::mem::replace(&mut self.power, change.to), change.from);
        }
    }
}

fn bar(input: &mut Input<'_>) -> Option<Bar> {
    let (kind, bits) = (input.below(5), input.below(64) as u32);
    let (size, prefetchable) = (1u32.wrapping_shl(bits), input.rarely(2));
    match kind {
        0 => None,
        1 => Some(Bar::Io { size }),
        2 => Some(Bar::Memory32 { size, prefetchable }),
        3 => Some(Bar::Memory64 { size: 1 << bits, prefetchable }),
        _ => Some(Bar::Memory64 { size: input.number(), prefetchable }),
    }
}

/// A configuration space of some length, with lists of capabilities that make some sense.
fn config(input: &mut Input<'_>) -> Vec<u8> {
    let length = match input.below(4) {
        0 => 256,
        1 => 4096,
        2 => 64 + input.below(256),
        _ => usize::from(input.u16() % 4097),
    };
    let mut config = vec![0; 4096];
    config[6] = 0x10;
    let mut link = 0x34;
    for _ in 0..input.below(12) {
        let at = usize::from(input.byte() & 0xfc);
        config[link] = at as u8;
        config[at] = input.one_of(&[0x01, 0x05, 0x10, 0x11, 0x13, 0x09, 0x02, 0x14]);
        let registers = input.bytes(12);
        config[at + 2..(at + 2 + registers.len())].copy_from_slice(registers);
        link = at + 1;
    }
    config[link] = input.byte();
    let mut at = 0x100;
    for _ in 0..input.below(12) {
        let next = usize::from(input.u16() & 0xffc);
        let id = if input.rarely(2) { input.one_of(&NEVER_EXTENDED) } else { u16::from(input.byte()) };
        let header = u32::from(id) | 1 << 16 | (next as u32) << 20;
        config[at..at + 4].copy_from_slice(&header.to_le_bytes());
        at = next;
    }
    for _ in 0..input.below(8) {
        config[usize::from(input.u16() % 4096)] = input.byte();
    }
    config.truncate(length);
    config
}

impl Function {
    fn new(input: &mut Input<'_>) -> Self {
        let mut hardware = config(input);
        let bars = std::array::from_fn(|_| bar(input));
        let choices = input.byte();
        let found = Found {
            config: &hardware,
            bars,
            rom: if choices & 1 != 0 { input.u32() } else { 0 },
            root_bus: choices & 2 != 0,
            intx: choices & 4 != 0,
            multifunction: choices & 8 != 0,
        };
        let filter = Filter::new(&found);
        hardware.resize(hardware.len().max(64), 0);
        let vectors = filter.msix().map(|msix| (msix, MsiXTable::new(msix.vectors)));
        let mut new =
            Function { hardware, filter, lists: (vec![], vec![]), vectors, followed: Followed::default() };
        new.lists = new.walk();
        assert!(!new.lists.0.iter().any(|id| NEVER.contains(id)), "{:x?}", new.lists.0);
        assert!(!new.lists.1.iter().any(|id| NEVER_EXTENDED.contains(id)), "{:x?}", new.lists.1);
        new.check_places();
        new
    }

    fn get<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data =
            std::array::from_fn(|i| self.hardware.get(usize::from(offset) + i).map_or(0x5a, |byte| *byte));
        self.filter.read(offset, &mut data);
        data
    }

    /// The capabilities that a driver finds.
    fn walk(&self) -> (Vec<u8>, Vec<u16>) {
        let (mut standard, mut extended) = (Vec::new(), Vec::new());
        let mut at = if self.get::<1>(6)[0] & 0x10 != 0 { self.get::<1>(0x34)[0] } else { 0 };
        while at >= 0x40 {
            let [id, next] = self.get(at.into());
            standard.push(id);
            assert!(standard.len() <= 48, "{standard:x?}");
            at = next;
        }
        let mut at = 0x100;
        while at >= 0x100 {
            let header = u32::from_le_bytes(self.get(at));
            if header == 0 || header == !0 {
                break;
            }
            extended.push(header as u16);
            assert!(extended.len() <= 257, "{extended:x?}");
            at = (header >> 20) as u16;
        }
        (standard, extended)
    }

    /// The table and the pending bits lie in memory that the function has.
    fn check_places(&self) {
        let Some((msix, table)) = &self.vectors else { return };
        assert!(table.vectors() == msix.vectors && (1..=2048).contains(&msix.vectors));
        let lengths = [u64::from(msix.vectors) * 16, u64::from(msix.vectors).div_ceil(64) * 8];
        for (place, length) in [msix.table, msix.pending].into_iter().zip(lengths) {
            let bar = self.filter.bar(place.bar).expect("a BAR that exists");
            assert!(place.bar < ROM && !matches!(bar, Bar::Io { .. }));
            assert!(u64::from(place.offset) + length <= bar.size(), "{place:?} {bar:?}");
        }
    }

    /// Carries out what goes on to the hardware: of a write, its own bits and nothing else.
    fn forward(&mut self, offset: u16, data: &[u8], outcome: &Outcome) {
        let mut sent = std::collections::BTreeMap::new();
        for forward in &outcome.forwards {
            let (at, data) = (usize::from(forward.offset), forward.data());
            assert!(matches!(data.len(), 1 | 2 | 4) && at % data.len() == 0, "{forward:?}");
            self.hardware[at..at + data.len()].copy_from_slice(data);
            for (at, byte) in (at..).zip(data) {
                assert_eq!(sent.insert(at, *byte), None, "twice");
            }
        }
        for (at, byte) in (offset..=u16::MAX).zip(data) {
            // Our bits are those that read the same whatever the hardware says.
            let (mut zeros, mut ones) = ([0], [0xff]);
            self.filter.read(at, &mut zeros);
            self.filter.read(at, &mut ones);
            let mask = !(zeros[0] ^ ones[0]);
            let expected = (mask != 0xff).then_some((byte & !mask) | zeros[0]);
            assert_eq!(sent.remove(&usize::from(at)), expected, "at {at:#x}");
        }
        assert!(sent.is_empty(), "{sent:x?}");
    }

    fn size(&mut self, bar: u8) {
        let offset = if bar == ROM { 0x30 } else { 0x10 + 4 * u16::from(bar) };
        let registers = if matches!(self.filter.bar(bar), Some(Bar::Memory64 { .. })) { 2 } else { 1 };
        let mut stuck = 0;
        for register in 0..registers {
            let at = offset + 4 * register;
            let before = self.get::<4>(at);
            self.write_config(at, &[0xff; 4]);
            stuck |= u64::from(u32::from_le_bytes(self.get(at))) << (32 * register);
            self.write_config(at, &before);
            assert_eq!(self.get::<4>(at), before);
        }
        match self.filter.bar(bar) {
            Some(Bar::Io { size }) => assert_eq!((stuck as u32 & !3).wrapping_neg(), size),
            Some(Bar::Memory32 { size, .. }) => assert_eq!((stuck as u32 & !0xf).wrapping_neg(), size),
            Some(Bar::Memory64 { size, .. }) => assert_eq!((stuck & !0xf).wrapping_neg(), size),
            None => {}
        }
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let messages = (self.filter.msi(), self.filter.msix());
        let outcome = self.filter.write(offset, data);
        self.forward(offset, data, &outcome);
        self.followed.follow(&outcome);
        assert_eq!(outcome.msi, messages.0 != self.filter.msi());
        assert_eq!(outcome.msix, messages.1 != self.filter.msix());
    }

    fn table(&mut self, input: &mut Input<'_>) {
        let Some((msix, table)) = &mut self.vectors else { return };
        let offset = u64::from(input.u16()) % (16 * u64::from(msix.vectors) + 16);
        let vector = (offset / 16) as u16;
        let from = table.message(vector);
        let change = match input.below(4) {
            0 => table.write(offset & !7, &input.u64().to_le_bytes()),
            1 => table.write(offset, input.bytes(8)),
            2 => table.write(offset & !3, &input.u32().to_le_bytes()),
            _ => {
                table.pend(vector);
                assert_eq!(table.take_pending(vector), vector < msix.vectors);
                Ok(None)
            }
        };
        let to = table.message(vector);
        match change {
            Ok(change) => assert_eq!(change, (from != to).then_some(VectorChange { vector, from, to })),
            Err(Fault::NoRegister | Fault::Width | Fault::Unaligned) => assert_eq!(from, to),
        }
        let masked = self.filter.msix().is_some_and(|msix| msix.masked);
        for change in table.mask_function(masked) {
            assert_eq!(table.message(change.vector), change.to);
        }
        assert!(!masked || (0..msix.vectors).all(|vector| table.message(vector).is_none()));
    }
}

impl Device for Function {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        match input.below(8) {
            0 => input.u16(),
            1 => input.u16() % 4096,
            2 => 0x10 + 4 * input.below(12) as u16,
            3 => 4,
            _ => input.byte().into(),
        }
    }

    fn read(&mut self, offset: u16, out: &mut [u8], _: &Surroundings) -> Result<(), Fault> {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.hardware.get(usize::from(offset) + i).copied().unwrap_or(*byte);
        }
        self.filter.read(offset, out);
        Ok(())
    }

    fn write(&mut self, offset: u16, data: &[u8], _: &Surroundings) -> Result<(), Fault> {
        self.write_config(offset, data);
        Ok(())
    }

    fn reset(&mut self) {
        let outcome = self.filter.reset();
        self.followed.follow(&outcome);
        assert_eq!(self.followed, Followed::default(), "nothing decodes, in D0");
        assert!(self.filter.msi().is_none_or(|msi| !msi.enabled));
        assert!(self.filter.msix().is_none_or(|msix| !msix.enabled && !msix.masked));
        if let Some((_, table)) = &mut self.vectors {
            table.reset();
        }
    }

    fn other(&mut self, input: &mut Input<'_>, _: &Surroundings) {
        match input.below(3) {
            0 => self.size(input.below(7) as u8),
            1 => self.table(input),
            _ => {
                let pending = input.u32();
                self.filter.set_msi_pending(pending);
            }
        }
    }

    fn check(&mut self, _: &Surroundings) {
        assert_eq!(self.walk(), self.lists, "nothing appears and nothing goes");
        assert_eq!(Followed::of(&self.filter), self.followed);
        for bar in 0..=ROM {
            let (Some(base), Some(kind)) = (self.filter.decoded(bar), self.filter.bar(bar)) else { continue };
            assert!(base % kind.size() == 0 && base.checked_add(kind.size()).is_some(), "{bar}: {base:x}");
        }
        if let Some(msi) = self.filter.msi() {
            assert!(msi.vectors.is_power_of_two() && msi.vectors <= msi.capable && msi.capable <= 32);
            assert!((msi.vectors..40).all(|vector| msi.message(vector).is_none()));
        }
    }
}
