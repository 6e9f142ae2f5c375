//! How a PCI function is named.

use std::fmt;
use std::str::FromStr;

use crate::config::serde_as_text;
use crate::error::BadValue;

/// Where a function is on this host: `0000:03:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// 0 on most machines; five digits and more belong to bridges that are no hardware (VMD).
    pub domain: u32,
    /// 0 to 255.
    pub bus: u8,
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

impl Address {
    /// What it shares with the other functions of its slot.
    pub(super) fn slot(self) -> (u32, u8, u8) {
        (self.domain, self.bus, self.device)
    }
}

impl FromStr for Address {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        parse(text).ok_or_else(|| {
            BadValue::not(text, "a PCI address", "write it as 0000:03:00.0, or 03:00.0 for short")
        })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    // Stricter than from_str_radix, which also takes a sign.
    let number = |digits: &str, longest: usize, most: u32| {
        let right = (1..=longest).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|&value| right && value <= most)
    };
    Some(Address {
        domain: number(domain, 8, u32::MAX)?,
        bus: number(bus, 2, 255)?.try_into().ok()?,
        device: number(device, 2, 31)?.try_into().ok()?,
        function: number(function, 1, 7)?.try_into().ok()?,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// What `--passthrough` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Every function that can go.
    All,
    /// This one.
    Function(Address),
}

impl FromStr for Choice {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text == "all" {
            return Ok(Self::All);
        }
        let bad = |_| {
            let mend =
                "write it as 0000:03:00.0, or 03:00.0 for short, or all; `kagero devices` lists what is here";
            BadValue::not(text, "a PCI address", mend)
        };
        text.parse().map(Self::Function).map_err(bad)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Function(address) => address.fmt(f),
        }
    }
}

serde_as_text! {
    Address => "a PCI address in quotes, as \"0000:03:00.0\"",
    Choice => "a PCI address in quotes, as \"0000:03:00.0\", or \"all\"",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, full) in [
            ("0000:03:00.0", "0000:03:00.0"),
            ("03:1f.7", "0000:03:1f.7"),
            ("3:2.1", "0000:03:02.1"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), full);
        }
        for text in [
            "",
            "all",
            "03",
            "03:00",
            "03:20.0",
            "03:00.8",
            "100:00.0",
            "03:+1.0",
            "0:0:0:0.0",
            ":0.0",
            "03:00.",
            "é:0.0",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(
                error,
                BadValue::not(text, "a PCI address", "write it as 0000:03:00.0, or 03:00.0 for short")
            );
        }
        assert_eq!("all".parse(), Ok(Choice::All));
        assert!("al".parse::<Choice>().unwrap_err().to_string().contains("kagero devices"));
    }
}
