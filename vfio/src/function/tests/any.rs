//! Whatever a guest does.

use super::*;
use crate::mock::Mapped;
use crate::{Interrupt, Region};
use kagero_devices::pci::ROM;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Read(u16, usize),
    Write(u16, Vec<u8>),
    Command(u16),
    Bar(u8, u32),
    Table(u64, u32),
    Access(Region, u64, usize),
    Route(Option<u8>),
    Raise(Interrupt, u32),
    Reset,
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(2), Just(4), Just(8), 0..70usize]
}

fn step() -> impl Strategy<Value = Step> {
    use Spec as S;
    let register = prop_oneof![
        0u16..256,
        any::<u16>(),
        prop::sample::select(vec![
            S::POWER + 4,
            S::MSI + 2,
            S::MSI + 12,
            S::MSI + 16,
            S::MSIX + 2,
            S::EXPRESS + 8,
            0x30
        ])
    ];
    let region = prop_oneof![(0u8..8).prop_map(Region::Bar), Just(Region::Rom)];
    let kind = prop::sample::select(vec![Interrupt::Intx, Interrupt::Msi, Interrupt::MsiX]);
    // Few places, so that they meet.
    let place =
        prop::sample::select(vec![0xfe00_0000, 0xfe01_0000, 0xfe00_4000, 0x10_0000, 0xffff_ffff, 0, 1, 8]);
    prop_oneof![
        1 => (register.clone(), width()).prop_map(|(at, width)| Step::Read(at, width)),
        4 => (register, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, data)| Step::Write(at, data)),
        3 => (0u16..8).prop_map(Step::Command),
        3 => (0u8..7, place).prop_map(|(bar, value)| Step::Bar(bar, value)),
        4 => (0u64..0x100, any::<u32>()).prop_map(|(at, value)| Step::Table(at & !3, value)),
        1 => (region, prop_oneof![0u64..0x4000, any::<u64>()], width()).prop_map(|(r, at, w)| Step::Access(r, at, w)),
        1 => prop::option::of(0u8..24).prop_map(Step::Route),
        2 => (kind, 0u32..9).prop_map(|(kind, vector)| Step::Raise(kind, vector)),
        1 => Just(Step::Reset),
    ]
}

impl Guest {
    fn take(&mut self, step: Step) {
        let before = self.function.decodes();
        let moved = match step {
            Step::Read(at, width) => {
                self.function.read_config(at, &mut vec![0; width]);
                false
            }
            Step::Write(at, data) => self.function.write_config(at, &data),
            Step::Command(bits) => self.write16(COMMAND, bits),
            Step::Bar(bar, value) => self.write32(BAR0 + 4 * u16::from(bar), value),
            Step::Table(at, value) => {
                self.function.write(Region::Bar(0), 0x2000 + at, &value.to_le_bytes());
                false
            }
            Step::Access(region, at, width) => {
                let mut data = vec![0; width];
                self.function.read(region, at, &mut data);
                self.function.write(region, at, &data);
                false
            }
            Step::Route(irq) => {
                self.function.route_line(irq);
                false
            }
            Step::Raise(kind, vector) => {
                self.bench.raise(kind, vector);
                false
            }
            Step::Reset => self.function.reset(),
        };
        assert!(moved || self.function.decodes() == before, "nobody was told that ranges changed");
    }

    /// Everything mapped belongs to what decodes now, and one kind of interrupts is on at most.
    fn is_consistent(&self) {
        let bars = self.function.decodes();
        for Mapped { gpa, length, bar, start } in self.bench.mapped() {
            let region = if bar == ROM { Region::Rom } else { Region::Bar(bar) };
            let found = bars.iter().find(|decode| decode.region == region);
            let decode = found.expect("a stale mapping");
            assert!(gpa == decode.first + start && start + length <= decode.length, "a stale mapping");
        }
        let kinds = [Interrupt::Intx, Interrupt::Msi, Interrupt::MsiX];
        let on = kinds.into_iter().filter(|kind| !self.bench.ringing(*kind).is_empty()).count();
        assert!(on <= 1);
        assert_eq!(self.bench.mistakes(), [""; 0]);
    }
}

proptest! {
    #[test]
    fn no_guest_makes_a_mess(grows: bool, steps in prop::collection::vec(step(), 1..60)) {
        let mut guest = Guest::of(Spec { grows, msi_limit: 3, ..Spec::full() });
        for step in steps {
            guest.take(step);
            guest.is_consistent();
        }
        guest.function.route_line(None);
        guest.function.reset();
        prop_assert!(guest.bench.mapped().is_empty() && guest.bench.connected().is_empty());
        prop_assert!(guest.function.take_error().is_none());
        let Guest { bench, function } = guest;
        drop(function);
        prop_assert_eq!(bench.mistakes(), [""; 0]);
        prop_assert!(bench.line().is_none());
    }

    #[test]
    fn nor_with_hardware_that_fails(steps in prop::collection::vec(step(), 1..40), calls in 0u32..60, for_good: bool) {
        let mut guest = Guest::new();
        guest.bench.fail_after(calls, for_good);
        for step in steps {
            guest.take(step);
        }
        let Guest { bench, function } = guest;
        drop(function);
        prop_assert!(bench.mapped().is_empty() && bench.connected().is_empty() && bench.line().is_none());
    }

    #[test]
    fn any_configuration_space_will_do(config in prop::collection::vec(any::<u8>(), 64..300), steps in prop::collection::vec(step(), 1..20)) {
        let bench = Bench::new();
        let spec = Spec { config, ..Spec::full() };
        if let Ok(function) = Function::new(bench.hardware(spec), bench.machine(), true, true) {
            let mut guest = Guest { bench, function };
            for step in steps {
                guest.take(step);
            }
        }
    }
}
