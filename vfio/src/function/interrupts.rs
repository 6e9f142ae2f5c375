//! Which kind of interrupt a function uses: one at a time.

use kagero_devices::pci::{Filter, MsiXTable};

use super::ends::Ends;
use super::line::Line;
use super::messages::{Messages, TableMessages};

/// The interrupts that are on.
pub(super) enum Interrupts {
    Off,
    Line(Line),
    Msi(Messages),
    MsiX(TableMessages),
}

/// The interrupts that should be on.
#[derive(PartialEq, Eq)]
enum Wanted {
    Off,
    Line { irq: u8 },
    Msi { vectors: u16 },
    MsiX,
}

impl Interrupts {
    /// Makes them what the guest has set up. `irq` is the line that the pin leads to.
    pub(super) fn follow(&mut self, filter: &Filter, table: &MsiXTable, irq: Option<u8>, ends: &mut Ends) {
        let wanted = wanted(filter, irq);
        if self.are() != wanted {
            self.off(ends);
            *self = match (wanted, filter.msi()) {
                (Wanted::Off, _) | (Wanted::Msi { .. }, None) => Interrupts::Off,
                (Wanted::Line { irq }, _) => Interrupts::Line(Line::new(irq, ends)),
                (Wanted::Msi { .. }, Some(msi)) => Interrupts::Msi(Messages::new(&msi, ends)),
                (Wanted::MsiX, _) => {
                    let first = table.message(0).is_some();
                    Interrupts::MsiX(TableMessages::new(table.vectors(), first, ends))
                }
            };
        }
        match self {
            Interrupts::Off | Interrupts::Line(_) => {}
            Interrupts::Msi(messages) => {
                if let Some(msi) = filter.msi() {
                    messages.update(&msi, ends);
                }
            }
            Interrupts::MsiX(messages) => {
                for vector in 0..table.vectors() {
                    messages.send(vector, table.message(vector), ends);
                }
            }
        }
    }

    /// Turns all off.
    pub(super) fn off(&mut self, ends: &mut Ends) {
        match self {
            Interrupts::Off => {}
            Interrupts::Line(line) => line.disconnect(ends),
            Interrupts::Msi(messages) => messages.silence(ends),
            Interrupts::MsiX(messages) => messages.silence(ends),
        }
        *self = Interrupts::Off;
    }

    fn are(&self) -> Wanted {
        match self {
            Interrupts::Off => Wanted::Off,
            Interrupts::Line(line) => Wanted::Line { irq: line.irq() },
            Interrupts::Msi(messages) => Wanted::Msi { vectors: messages.asked() },
            Interrupts::MsiX(_) => Wanted::MsiX,
        }
    }
}

/// Messages go before the pin; both kinds at once is undefined (PCI Local Bus 3.0, 6.8.3).
fn wanted(filter: &Filter, irq: Option<u8>) -> Wanted {
    let msi = filter.msi().filter(|msi| msi.enabled);
    if filter.msix().is_some_and(|msix| msix.enabled) {
        Wanted::MsiX
    } else if let Some(msi) = msi {
        Wanted::Msi { vectors: msi.vectors }
    } else {
        irq.map_or(Wanted::Off, |irq| Wanted::Line { irq })
    }
}
