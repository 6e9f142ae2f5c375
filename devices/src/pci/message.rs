//! Interrupts as messages.

/// A message signalled interrupt: the write that raises it (PCI Local Bus 3.0, 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// Where it is written: the local APICs' FEEx_xxxxh on a PC.
    pub address: u64,
    /// What is written.
    pub data: u32,
}
