//! Hardware, or a machine, that fails.

use super::*;
use crate::{Error, Interrupt, Region};

/// All that a driver does, once.
fn live(function: &mut Function) {
    let mut write = |offset: u16, value: u32| {
        function.write_config(offset, &value.to_le_bytes());
    };
    write(BAR0, 0xfe00_0000);
    write(COMMAND, 7);
    function.route_line(Some(11));
    function.write_config(Spec::MSI + 2, &[0x31, 0]);
    function.write_config(Spec::MSI + 12, &[0x44, 0]);
    function.write_config(Spec::MSI + 2, &[0, 0]);
    function.write_config(Spec::MSIX + 2, &[0, 0x80]);
    for vector in 0..4 {
        function.write(Region::Bar(0), 0x200c + 16 * vector, &[0; 4]);
        function.write(Region::Bar(0), 0x2008 + 16 * vector, &[9; 4]);
    }
    function.write_config(Spec::MSIX + 2, &[0, 0]);
    function.route_line(Some(10));
    function.read(Region::Bar(2), 0, &mut [0; 4]);
    function.read(Region::Rom, 0, &mut [0; 4]);
    function.write_config(BAR0, &0xfd00_0000u32.to_le_bytes());
    function.write_config(Spec::POWER + 4, &[3, 0]);
    function.write_config(Spec::POWER + 4, &[0, 0]);
    function.write_config(Spec::EXPRESS + 8, &[0, 0x80]);
    function.reset();
}

/// One call fails, at each place where one can.
#[test]
fn each_call_may_fail_and_the_guest_lives() {
    for calls in 0..200 {
        for for_good in [false, true] {
            let bench = Bench::new();
            bench.fail_after(calls, for_good);
            let Ok(mut function) = Function::new(bench.hardware(Spec::full()), bench.machine(), true, false)
            else {
                assert!(calls == 0);
                continue;
            };
            live(&mut function);
            let errors: Vec<_> = std::iter::from_fn(|| function.take_error()).collect();
            // The mock's calls fail as those of a function that is gone do: that is told once.
            assert!(errors.len() <= 1, "{errors:?}");
            assert!(errors.iter().all(|error| matches!(error, Error::Vanished { .. })), "{errors:?}");
            drop(function);
            assert!(bench.mapped().is_empty() && bench.connected().is_empty() && bench.line().is_none());
        }
    }
}

#[test]
fn a_function_that_is_gone_says_so_once_and_reads_as_ones() {
    let mut guest = Guest::configured();
    guest.bench.fail_after(0, true);
    let mut out = [0; 4];
    for _ in 0..3 {
        guest.function.read(Region::Bar(2), 0, &mut out);
        guest.function.write(Region::Bar(2), 0, &out);
    }
    assert_eq!(out, [0xff; 4]);
    let error = guest.function.take_error().unwrap().to_string();
    assert!(error.starts_with("0000:03:00.0: it is gone (reading its registers: No such device"), "{error}");
    assert!(guest.function.take_error().is_none());
}

#[test]
fn hardware_that_does_not_answer_is_no_function() {
    let gone = Spec { config: vec![0xff; 256], ..Spec::full() };
    for spec in [gone, Spec { config: vec![], ..Spec::full() }] {
        let bench = Bench::new();
        let error = Function::new(bench.hardware(spec), bench.machine(), true, false).unwrap_err();
        assert!(matches!(error, Error::Vanished { .. }), "{error}");
    }
}

#[test]
fn after_a_failure_the_next_setup_works() {
    let mut guest = Guest::configured();
    guest.bench.fail_after(0, true);
    guest.function.route_line(Some(11));
    assert!(guest.function.take_error().is_some());
    guest.bench.mend();
    guest.function.route_line(Some(10));
    assert_eq!(guest.bench.line(), Some(10));
    assert_eq!(guest.bench.ringing(Interrupt::Intx), [0]);
}
