//! Resets, by the machine and by the guest.

use super::*;
use crate::Region;

#[test]
fn a_reset_turns_interrupts_off_wakes_stops_resets_and_gives_the_line_back() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    guest.write16(Spec::POWER + 4, 3);
    let _ = guest.lines();
    assert!(!guest.function.reset());
    let lines = guest.lines();
    assert_eq!(lines[..2], ["disconnect line 11", "silence Intx"]);
    assert!(lines[2].starts_with("write Config 0x44 [00"), "{lines:?}");
    assert_eq!(lines[3..6], ["write Config 0x4 [00, 00]", "reset", "ring Intx 0 *"]);
    assert_eq!(guest.bench.line(), Some(11));
}

#[test]
fn registers_leave_before_a_reset() {
    let mut guest = Guest::configured();
    assert!(guest.function.reset());
    let order =
        ["unmap 0xfe000000", "unmap 0xfe004000", "unmap 0x800000000", "write Config 0x4 [00, 00]", "reset"];
    assert_eq!(guest.lines(), order);
    assert_eq!(guest.function.decodes(), []);
    assert!(!guest.function.reset());
}

#[test]
fn the_bus_is_reset_where_the_function_has_no_reset() {
    let spec = Spec { reset: false, bus_reset: true, ..Spec::full() };
    let mut guest = Guest::of(spec.clone());
    guest.function.reset();
    assert_eq!(guest.effects(), ["reset bus"]);
    let mut guest = Guest::of(Spec { bus_reset: false, ..spec });
    guest.function.reset();
    assert_eq!(guest.effects(), [""; 0]);
}

/// What is left then is the way over D3hot, which doesn't stop all hardware.
#[test]
fn the_bus_is_reset_rather_than_a_function_without_function_level_reset() {
    let mut spec = Spec { bus_reset: true, ..Spec::full() };
    let mut guest = Guest::of(spec.clone());
    guest.function.reset();
    assert_eq!(guest.effects(), ["reset"], "it has one");
    // Device Capabilities without the bit.
    spec.config[usize::from(Spec::EXPRESS) + 7] &= !(1 << 4);
    let mut guest = Guest::of(spec.clone());
    guest.function.reset();
    assert_eq!(guest.effects(), ["reset bus"]);
    let mut guest = Guest::of(Spec { bus_reset: false, ..spec });
    guest.function.reset();
    assert_eq!(guest.effects(), ["reset"], "better than none");
}

#[test]
fn the_guests_own_reset_is_carried_out_with_all_that_belongs_to_it() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    guest.function.write(Region::Bar(0), 0x200c, &[0; 4]);
    guest.write16(Spec::MSIX + 2, 1 << 15);
    let _ = guest.lines();
    assert!(guest.write16(Spec::EXPRESS + 8, 1 << 15));
    let mut lines = guest.effects();
    let tail = lines.split_off(5);
    let head =
        ["disconnect 0x0", "silence MsiX", "unmap 0xfe000000", "unmap 0xfe004000", "unmap 0x800000000"];
    assert_eq!(lines, head);
    assert_eq!(tail[..2], ["reset", "ring Intx 0 *"]);
    let mut control = [0; 4];
    guest.function.read(Region::Bar(0), 0x200c, &mut control);
    assert_eq!(control, [1, 0, 0, 0]);
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let mut guest = Guest::configured();
    guest.function.write(Region::Bar(0), 0x200c, &[0; 4]);
    guest.write16(Spec::MSIX + 2, 1 << 15);
    let Guest { bench, function } = guest;
    assert!(!bench.mapped().is_empty() && !bench.connected().is_empty());
    drop(function);
    // No more DMA either.
    assert_eq!(bench.take_journal().last().unwrap(), "write Config 0x4 [00, 00]");
    assert!(bench.mapped().is_empty() && bench.connected().is_empty());
    assert_eq!(bench.mistakes(), [""; 0]);
}
