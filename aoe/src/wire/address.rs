//! Who is who: Ethernet addresses, and shelf and slot.

use core::fmt;
use core::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Every station on the link.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// Whether it names a group of stations (broadcast included), which no frame can come *from*.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(bytes: [u8; 6]) -> Self {
        MacAddress(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseAddressError::Mac)?;
            if part.len() != 2 || part.starts_with('+') {
                return Err(ParseAddressError::Mac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseAddressError::Mac)?;
        }
        if parts.next().is_some() { Err(ParseAddressError::Mac) } else { Ok(MacAddress(bytes)) }
    }
}

/// The AoE address of a disk: shelf (major) and slot (minor), written `7.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The major address, 0 to 65,534.
    pub shelf: u16,
    /// The minor address, 0 to 254.
    pub slot: u8,
}

impl Address {
    /// Every disk on the link.
    pub const BROADCAST: Address = Address { shelf: 0xffff, slot: 0xff };

    /// Whether a request with this address is meant for the disk at `disk`: all ones in either part match any.
    #[must_use]
    pub const fn reaches(self, disk: Address) -> bool {
        (self.shelf == 0xffff || self.shelf == disk.shelf) && (self.slot == 0xff || self.slot == disk.slot)
    }

    /// Whether either part is all ones, so that it names no single disk.
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        self.shelf == 0xffff || self.slot == 0xff
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Reads `7.1`. The all-ones parts are refused: they name no disk.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let (shelf, slot) = text.split_once('.').ok_or(ParseAddressError::Shelf)?;
        if !decimal(shelf) || !decimal(slot) {
            return Err(ParseAddressError::Shelf);
        }
        let address = Address {
            shelf: shelf.parse().map_err(|_| ParseAddressError::Shelf)?,
            slot: slot.parse().map_err(|_| ParseAddressError::Shelf)?,
        };
        if address.is_broadcast() { Err(ParseAddressError::Shelf) } else { Ok(address) }
    }
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseAddressError {
    /// Not a shelf and slot.
    Shelf,
    /// Not an Ethernet address.
    Mac,
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseAddressError::Shelf => {
                "not an AoE address: write shelf.slot, such as 7.1 (shelf 0 to 65534, slot 0 to 254)"
            }
            ParseAddressError::Mac => "not an Ethernet address: write six pairs such as 02:00:00:00:00:01",
        })
    }
}

impl core::error::Error for ParseAddressError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn addresses_as_text() {
        let address: Address = "7.1".parse().unwrap();
        assert_eq!(address, Address { shelf: 7, slot: 1 });
        assert_eq!(address.to_string(), "7.1");
        assert_eq!("65534.254".parse(), Ok(Address { shelf: 65534, slot: 254 }));
        for bad in ["", "7", "7.", ".1", "7.1.2", "65535.1", "7.255", "+7.1", "7.-1", "7 .1", "e7.1"] {
            assert_eq!(bad.parse::<Address>(), Err(ParseAddressError::Shelf), "{bad}");
        }
    }

    #[test]
    fn all_ones_reach_any_disk() {
        let disk = Address { shelf: 7, slot: 1 };
        assert!(disk.reaches(disk) && Address::BROADCAST.reaches(disk));
        assert!(
            Address { shelf: 7, slot: 255 }.reaches(disk) && Address { shelf: 65535, slot: 1 }.reaches(disk)
        );
        assert!(
            !Address { shelf: 7, slot: 2 }.reaches(disk) && !Address { shelf: 8, slot: 255 }.reaches(disk)
        );
    }

    #[test]
    fn mac_addresses_as_text() {
        let mac: MacAddress = "02:00:00:00:0A:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:0a:ff");
        assert!(!mac.is_multicast() && MacAddress::BROADCAST.is_multicast());
        for bad in
            ["", "02:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "+2:00:00:00:00:00", "gg:00:00:00:00:00"]
        {
            assert_eq!(bad.parse::<MacAddress>(), Err(ParseAddressError::Mac), "{bad}");
        }
    }
}
