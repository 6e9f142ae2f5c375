//! Who may reach a disk, by its operator's will.

use alloc::vec::Vec;

use super::Port;
use crate::wire::MacAddress;

/// Who may reach a disk, and on which ports; [`Default`] is everyone, everywhere. Others get no answer at all, as if the disk were not there.
///
/// Clients neither change nor see it: their own list is [`Settings::mask`](super::Settings::mask). A station's address is what it says
/// of itself, so this keeps accidents out rather than attackers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Sorted.
    stations: Option<Vec<MacAddress>>,
    /// Sorted.
    ports: Option<Vec<u16>>,
}

impl Admission {
    /// The same, for these stations only.
    #[must_use]
    pub fn only_stations(self, stations: impl IntoIterator<Item = MacAddress>) -> Self {
        Admission { stations: Some(sorted(stations)), ..self }
    }

    /// The same, on the ports with these [numbers](Port::number) only.
    #[must_use]
    pub fn only_ports(self, numbers: impl IntoIterator<Item = u16>) -> Self {
        Admission { ports: Some(sorted(numbers)), ..self }
    }

    /// The stations that are let in, sorted; `None` for all.
    #[must_use]
    pub fn stations(&self) -> Option<&[MacAddress]> {
        self.stations.as_deref()
    }

    /// Whether a request that comes on `port` from `station` is answered.
    #[must_use]
    pub fn admits(&self, port: &Port, station: MacAddress) -> bool {
        self.offers(port) && self.stations.as_ref().is_none_or(|list| list.binary_search(&station).is_ok())
    }

    /// Whether the disk is offered on `port` at all.
    pub(super) fn offers(&self, port: &Port) -> bool {
        self.ports.as_ref().is_none_or(|list| list.binary_search(&port.number).is_ok())
    }

    /// Who is told that the disk is there.
    pub(super) fn audience(&self, port: &Port) -> &[MacAddress] {
        match &self.stations {
            _ if !self.offers(port) => &[],
            None => &[MacAddress::BROADCAST],
            Some(stations) => stations,
        }
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items.dedup();
    items
}
