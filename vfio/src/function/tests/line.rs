//! The interrupt pin.

use super::*;
use crate::Interrupt;

#[test]
fn the_pin_is_connected_in_an_order_that_loses_nothing() {
    let mut guest = Guest::configured();
    assert_eq!(guest.function.pin(), Some(1));
    guest.function.route_line(Some(11));
    let order = ["ring Intx 0 *", "mask line", "connect line 11", "unmask line on event", "unmask line"];
    assert_eq!(guest.lines(), order);
    guest.function.route_line(Some(11));
    assert_eq!(guest.lines(), [""; 0]);
    assert!(!guest.bench.serve_line());
    assert!(guest.bench.raise(Interrupt::Intx, 0) && guest.bench.serve_line());
}

#[test]
fn a_new_route_is_a_new_connection() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    let _ = guest.lines();
    guest.function.route_line(Some(10));
    let lines = guest.lines();
    assert_eq!(lines[..3], ["disconnect line 11", "silence Intx", "ring Intx 0 *"]);
    assert_eq!(guest.bench.line(), Some(10));
    guest.function.route_line(None);
    assert_eq!(guest.lines(), ["disconnect line 10", "silence Intx"]);
}

#[test]
fn holding_the_pin_back_is_the_hardwares_business() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    let _ = guest.lines();
    guest.write16(COMMAND, command::MEMORY | command::INTX_DISABLE);
    assert!(guest.lines().contains(&"write Config 0x4 [02, 04]".to_owned()));
    assert_eq!(guest.bench.line(), Some(11));
}

#[test]
fn messages_replace_the_pin_and_the_route_may_change_meanwhile() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    let _ = guest.lines();
    guest.write16(Spec::MSI + 2, 1);
    assert_eq!(guest.lines(), ["disconnect line 11", "silence Intx", "ring Msi 0 *", "connect 0x0"]);
    guest.function.route_line(Some(10));
    assert_eq!(guest.lines(), [""; 0]);
    guest.write16(Spec::MSI + 2, 0);
    assert_eq!(guest.lines()[..3], ["disconnect 0x0", "silence Msi", "ring Intx 0 *"]);
    assert_eq!(guest.bench.line(), Some(10));
}

#[test]
fn without_a_pin_there_is_no_line() {
    let mut guest = Guest::of(Spec { intx: false, ..Spec::full() });
    assert_eq!(guest.function.pin(), None);
    guest.function.route_line(Some(11));
    assert_eq!(guest.lines(), [""; 0]);
    assert_eq!(guest.bench.ringing(Interrupt::Intx), [0; 0]);
}
