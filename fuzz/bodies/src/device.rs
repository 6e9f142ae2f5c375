//! One way to treat any device: as a guest that knows nothing of it but its ports.

use core::time::Duration;

use kagero_devices::memory::DmaMemory;
use kagero_devices::register::Fault;
use kagero_devices::time::Instant;
use kagero_devices::toy::Memory;

use crate::input::Input;

/// What surrounds a device.
pub(crate) struct Surroundings {
    /// Guest memory from 0 on; most of what a guest can name is outside.
    pub(crate) mem: Memory,
    pub(crate) now: Instant,
    /// The clock can jump ahead by years only once: some devices go through what they have missed.
    jumped: bool,
}

/// A device with registers.
pub(crate) trait Device: Clone {
    /// Where a register may be.
    type Port: Copy + core::fmt::Debug;

    /// Any port, most often one that exists.
    fn port(&self, input: &mut Input<'_>) -> Self::Port;
    fn read(&mut self, port: Self::Port, out: &mut [u8], around: &Surroundings) -> Result<(), Fault>;
    fn write(&mut self, port: Self::Port, data: &[u8], around: &Surroundings) -> Result<(), Fault>;
    fn reset(&mut self);
    /// Something that happens to it and is no register access.
    fn other(&mut self, _input: &mut Input<'_>, _around: &Surroundings) {}
    /// Panics when something does not hold that must.
    fn check(&mut self, around: &Surroundings);
}

/// Does with `device` what `input` says, to its end.
pub(crate) fn exercise<D: Device>(mut device: D, mut input: Input<'_>) {
    let start = Instant::from_nanos(input.number());
    let mut around = Surroundings { mem: Memory::new(0x2_0000), now: start, jumped: false };
    while !input.is_empty() {
        match input.below(16) {
            0..5 => {
                let port = device.port(&mut input);
                let width = width(&mut input);
                read(&mut device, port, width, &around);
            }
            5..10 => {
                let port = device.port(&mut input);
                let width = width(&mut input);
                let mut data = [0; 16];
                let given = input.bytes(width);
                data[..given.len()].copy_from_slice(given);
                let _either = device.write(port, &data[..width], &around);
            }
            10..13 => device.other(&mut input, &around),
            13 => {
                let (at, data) = (input.u16(), input.bytes(32));
                assert_eq!(around.mem.write(at.into(), data), Ok(()));
            }
            14 => around.pass_time(&mut input),
            _ if input.rarely(4) => device.reset(),
            _ => {}
        }
        device.check(&around);
    }
}

/// Reads twice, into buffers that hold different things: a read that succeeds sets every byte.
pub(crate) fn read<D: Device>(device: &mut D, port: D::Port, width: usize, around: &Surroundings) {
    let mut twin = device.clone();
    let (mut out, mut other) = (vec![0x55; width], vec![0xaa; width]);
    let result = device.read(port, &mut out, around);
    assert_eq!(result, twin.read(port, &mut other, around), "the same device answers the same");
    assert!(result.is_err() || out == other, "a read of {width} at {port:?} leaves bytes unset");
}

/// Mostly a width that exists.
fn width(input: &mut Input<'_>) -> usize {
    match input.below(16) {
        0..8 => 1,
        8..11 => 2,
        11..14 => 4,
        14 => 8,
        _ => input.below(17),
    }
}

impl Surroundings {
    fn pass_time(&mut self, input: &mut Input<'_>) {
        let nanos = input.number();
        let long = nanos > 1 << 40;
        if long && core::mem::replace(&mut self.jumped, true) {
            return;
        }
        self.now = self.now + Duration::from_nanos(nanos);
    }
}
