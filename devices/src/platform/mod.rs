//! The chipset and the small devices of a PC of the i440FX kind, as SeaBIOS, GRUB and operating systems expect them.
//!
//! The interrupt controllers, the interval timer and port 61h are not here: KVM has them. Each device is a few registers; its owner
//! decides which ports lead to it, compares its interrupt level with the last one, and carries out its [`Effect`]s.

mod apm;
mod debug_port;
mod fw_cfg;
mod host_bridge;
mod i8042;
mod isa_bridge;
mod isa_dma;
mod power;
mod rtc;
mod system_control;

pub use apm::Apm;
pub use debug_port::DebugPort;
pub use fw_cfg::{FwCfg, FwCfgBuilder, MemoryKind, MemoryRange};
pub use host_bridge::HostBridge;
pub use i8042::I8042;
pub use isa_bridge::{IsaBridge, pirq_of};
pub use isa_dma::IsaDma;
pub use power::{BaseChange, Power};
pub use rtc::Rtc;
pub use system_control::{ResetControl, SystemControlA};

use crate::register::Fault;

/// What a register write asks of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reset the machine.
    Reset,
    /// Switch the machine off.
    PowerOff,
}

/// The value of a write to a register of one byte.
fn byte(data: &[u8]) -> Result<u8, Fault> {
    match data {
        [value] => Ok(*value),
        _ => Err(Fault::Width),
    }
}

/// The place for what is read from a register of one byte.
fn byte_mut(out: &mut [u8]) -> Result<&mut u8, Fault> {
    match out {
        [value] => Ok(value),
        _ => Err(Fault::Width),
    }
}
