//! The clock as operating systems use it.

use std::time::Duration;

use kagero_devices::platform::Rtc;
use kagero_devices::time::Instant;

/// 2024-12-31 23:59:50, a Tuesday.
const NEW_YEARS_EVE: u64 = 1_735_689_590;
const START: Instant = Instant::from_nanos(5_300_000_000);
const A_DAY: Duration = Duration::from_secs(86_400);

fn after(seconds: f64) -> Instant {
    START + Duration::from_secs_f64(seconds)
}

fn get(clock: &mut Rtc, index: u8, now: Instant) -> u8 {
    clock.write(0x70, &[index], now).unwrap();
    let mut out = [0];
    clock.read(0x71, &mut out, now).unwrap();
    out[0]
}

fn set(clock: &mut Rtc, index: u8, value: u8, now: Instant) {
    clock.write(0x70, &[index], now).unwrap();
    clock.write(0x71, &[value], now).unwrap();
}

/// Century to second.
fn shown(clock: &mut Rtc, now: Instant) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(clock, index | 0x80, now))
}

#[test]
fn counts() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    assert_eq!(shown(&mut clock, START), [0x20, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x50]);
    assert_eq!(shown(&mut clock, after(10.0)), [0x20, 0x25, 0x01, 0x01, 4, 0, 0, 0]);
    assert_eq!(get(&mut clock, 0x0d, START), 0x80);
    let mut index = [0];
    clock.read(0x70, &mut index, START).unwrap();
    assert_eq!(index, [0xff]);
}

#[test]
fn is_set_while_held() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    set(&mut clock, 0x0b, 0x82, after(0.5));
    set(&mut clock, 0x04, 0x12, after(1.5));
    set(&mut clock, 0x09, 0x30, after(2.5));
    assert_eq!(shown(&mut clock, after(5.0))[5..], [0x12, 0x59, 0x50], "held");
    set(&mut clock, 0x0b, 0x02, after(5.5));
    assert_eq!(shown(&mut clock, after(5.9)), [0x20, 0x30, 0x12, 0x31, 3, 0x12, 0x59, 0x50]);
    assert_eq!(shown(&mut clock, after(6.0))[7], 0x51, "the seconds' phase stays");
    set(&mut clock, 0x02, 0x30, after(6.0));
    assert_eq!(shown(&mut clock, after(6.0))[6..], [0x30, 0x51], "set without holding");
}

#[test]
fn announces_updates() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    assert_eq!(get(&mut clock, 0x0a, after(0.9997)), 0x26);
    assert_eq!(get(&mut clock, 0x0a, after(0.9998)), 0xa6);
    assert_eq!(get(&mut clock, 0x0a, after(1.0)), 0x26);
}

#[test]
fn update_interrupts() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    assert_eq!(clock.poll_timeout(), None);
    set(&mut clock, 0x0b, 0x12, after(0.25));
    assert_eq!(clock.poll_timeout(), Some(after(1.0)));
    assert!(!clock.irq(after(0.999)));
    assert!(clock.irq(after(1.0)));
    assert_eq!(clock.poll_timeout(), None, "until it is read");
    assert_eq!(get(&mut clock, 0x0c, after(1.0)) & 0x90, 0x90);
    assert!(!clock.irq(after(1.0)));
    assert_eq!(clock.poll_timeout(), Some(after(2.0)));
}

#[test]
fn periodic_interrupts() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    set(&mut clock, 0x0a, 0x2a, START); // 64 Hz
    set(&mut clock, 0x0b, 0x42, START);
    let mut now = START;
    for _ in 0..128 {
        let next = clock.poll_timeout().unwrap();
        assert!(!clock.irq(Instant::from_nanos(next.as_nanos() - 1)));
        assert!(clock.irq(next));
        assert_eq!(get(&mut clock, 0x0c, next) & 0xc0, 0xc0);
        now = next;
    }
    assert_eq!(now, after(2.0));
    set(&mut clock, 0x0a, 0x20, now);
    assert_eq!(clock.poll_timeout(), None);
}

#[test]
fn alarms() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START);
    for (index, value) in [(1, 0x05), (3, 0x00), (5, 0xff), (0x0b, 0x22)] {
        set(&mut clock, index, value, START);
    }
    assert!(!clock.irq(after(14.9)));
    assert!(clock.irq(after(15.0)), "at five seconds past any hour");
    assert_eq!(get(&mut clock, 0x0c, after(15.0)) & 0xa0, 0xa0);
    assert!(!clock.irq(after(15.0)));
    assert!(clock.irq(after(15.0) + 400 * A_DAY));
}

#[test]
fn memory_survives_a_reset() {
    let mut clock = Rtc::new(NEW_YEARS_EVE, START).with_memory(0xc000_0000, 0x1_4000_0000).with_cpus(16);
    set(&mut clock, 0x0f, 0x0a, START);
    set(&mut clock, 0x0b, 0x72, START);
    clock.reset();
    assert_eq!((get(&mut clock, 0x0f, START), get(&mut clock, 0x0b, START)), (0x0a, 0x02));
    let bytes = |clock: &mut Rtc, indices: &[u8]| -> Vec<u8> {
        indices.iter().map(|index| get(clock, *index, START)).collect()
    };
    assert_eq!(bytes(&mut clock, &[0x15, 0x16, 0x17, 0x18, 0x30, 0x31]), [0x80, 2, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(bytes(&mut clock, &[0x34, 0x35, 0x5b, 0x5c, 0x5d, 0x5f]), [0x00, 0xbf, 0x00, 0x40, 0x01, 15]);
}
