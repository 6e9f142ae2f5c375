//! The power management capability (PCI Power Management 1.2, 3.2).

use super::capability::{Capability, word};
use super::table::Table;

/// Power Management Capabilities, 16 bits.
const PMC: u16 = 2;
/// PMC: D1 and D2 exist.
const PMC_D1: u16 = 1 << 9;
const PMC_D2: u16 = 1 << 10;
/// PMC: in which states PME# may be asserted.
const PMC_PME: u16 = 0xf800;
/// Control and status, 16 bits.
const PMCSR: u16 = 4;
/// PMCSR: the power state.
const STATE: u16 = 3;
/// PMCSR: PME_En and PME_Status.
const PME: u16 = 1 << 8 | 1 << 15;
const LENGTH: u16 = 8;

/// Where the power state is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Power {
    pmcsr: u16,
    /// One bit for each state that exists.
    states: u8,
}

impl Power {
    /// Holds the power state, which is D0. PME# is hidden: it would wake the host, and tell the guest nothing.
    pub(super) fn new(capability: Capability, config: &[u8], table: &mut Table) -> Option<Self> {
        if capability.room < LENGTH {
            return None;
        }
        let (pmc, pmcsr) = (capability.offset + PMC, capability.offset + PMCSR);
        let has = |bit| u8::from(word(config, pmc) & bit != 0);
        table.hold(pmc, &(word(config, pmc) & !PMC_PME).to_le_bytes());
        table.hold_bits(pmcsr, &(STATE | PME).to_le_bytes(), &[0, 0]);
        table.allow(pmcsr, &STATE.to_le_bytes());
        Some(Power { pmcsr, states: 0b1001 | has(PMC_D1) << 1 | has(PMC_D2) << 2 })
    }

    /// 0 to 3 for D0 to D3hot.
    pub(super) fn state(self, table: &Table) -> u8 {
        (table.word(self.pmcsr) & STATE) as u8
    }

    /// After a write: a state that does not exist is not entered (3.2.4).
    pub(super) fn settle(self, before: u8, table: &mut Table) {
        if self.states >> self.state(table) & 1 == 0 {
            table.set(self.pmcsr, &u16::from(before).to_le_bytes());
        }
    }

    /// The register that holds the state.
    pub(super) fn register(self) -> u16 {
        self.pmcsr
    }
}
