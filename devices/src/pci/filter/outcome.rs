//! What a write to configuration space, or a reset, leads to.

use alloc::vec::Vec;

use crate::pci::BarChange;

/// A write that goes on to the hardware: 1, 2 or 4 bytes, aligned, as the bus has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where, in configuration space.
    pub offset: u16,
    data: [u8; 4],
    width: usize,
}

impl Forward {
    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..self.width).unwrap_or_default()
    }

    /// Appends `data`, from `offset` on, in as few accesses as can be.
    pub(super) fn split(mut offset: u16, mut data: &[u8], forwards: &mut Vec<Forward>) {
        while !data.is_empty() {
            let aligned = |width: &usize| *width <= data.len() && usize::from(offset).is_multiple_of(*width);
            let width = [4, 2].into_iter().find(aligned).unwrap_or(1);
            let (now, rest) = data.split_at(width);
            let mut bytes = [0; 4];
            bytes[..width].copy_from_slice(now);
            forwards.push(Forward { offset, data: bytes, width });
            offset = offset.saturating_add(width as u16);
            data = rest;
        }
    }
}

/// A value that was another before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// What it was.
    pub from: T,
    /// What it is now.
    pub to: T,
}

impl<T: PartialEq> Change<T> {
    pub(super) fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Change { from, to })
    }
}

/// What one write, or a reset, leads to. All of it is new state of the [`Filter`](super::Filter) already.
///
/// In this order nothing is reached that should not be: take away what decodes no more ([`from`](BarChange::from) of each of
/// [`bars`](Self::bars)), carry out [`forwards`](Self::forwards), give what decodes now, set up interrupts, and reset last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the hardware and the guest's machine have to follow"]
pub struct Outcome {
    /// What goes on to the hardware, in this order.
    pub forwards: Vec<Forward>,
    /// BARs that decode elsewhere than before: they moved, or the Command register or the power state turned them on or off.
    pub bars: Vec<BarChange>,
    /// The bits of the Command register that [`Filter::command`](super::Filter::command) gives.
    pub command: Option<Change<u16>>,
    /// The power state, 0 to 3 for D0 to D3hot (PCI Power Management 1.2, 3.2.4). It is on its way to the hardware with `forwards`.
    ///
    /// A function without No_Soft_Reset forgets its registers on the way from D3hot to D0. What the guest reads here does not change by that: the caller
    /// gives back to the hardware what it has lost, as VFIO does by itself.
    pub power: Option<Change<u8>>,
    /// [`Filter::msi`](super::Filter::msi) has changed.
    pub msi: bool,
    /// [`Filter::msix`](super::Filter::msix) has changed.
    pub msix: bool,
    /// The guest asks for a function level reset. That bit does not go on to the hardware: reset it in the way that is right for it (interrupts
    /// off, [`Filter::reset`](super::Filter::reset) and what comes of it, the reset itself), so that both sides agree on the state after it.
    pub reset: bool,
}
