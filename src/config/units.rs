//! Values as people write them: `2G`, `120s`, and AoE addresses.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kagero_aoe::wire::Address;

use kagero_target::{Format, Location};

use crate::error::BadValue;

/// A size in bytes, written with a unit: `512M`, `2G`. Units are powers of 1,024; `MiB` may be written for `M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |what| BadValue::not(text, what, "write it with its unit, as 512M or 2G");
        let (number, unit) = split_unit(text);
        let number: u64 = number.parse().map_err(|_| bad("a size"))?;
        let shift = match unit.strip_suffix("iB").unwrap_or(unit).to_ascii_uppercase().as_str() {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(bad("a size")),
        };
        number.checked_mul(1 << shift).map(Size).ok_or_else(|| bad("a size that fits 64 bits"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", grouped(self.0))
    }
}

/// A length of time, written with a unit: `120s`, `500ms`, `1.5s`, `2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::not(text, "a length of time", "write it with its unit, as 120s, 500ms or 2m");
        let (number, unit) = split_unit(text);
        let number: f64 = decimal(number).ok_or_else(bad)?;
        let seconds = match unit {
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(bad()),
        };
        // A year is for ever, and keeps every deadline within the clock's range.
        if seconds > 365.0 * 86_400.0 {
            return Err(BadValue::not(
                text,
                "a length of time up to a year",
                "leave the option out for no limit",
            ));
        }
        // Whole microseconds: 0.1 s has no exact binary form.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, at most a year"
        )]
        let micros = (seconds * 1e6).round() as u64;
        Ok(Period(Duration::from_micros(micros)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        match () {
            () if micros.is_multiple_of(1_000_000) => write!(f, "{}s", micros / 1_000_000),
            () if micros.is_multiple_of(1_000) => write!(f, "{}ms", micros / 1_000),
            () => write!(f, "{micros}us"),
        }
    }
}

/// Reads an AoE address, written `shelf.slot`: `7.1`.
///
/// # Errors
/// Also for the all-ones addresses that name no single target.
pub(crate) fn address(text: &str) -> Result<Address, BadValue> {
    text.parse().map_err(|_| {
        BadValue::not(
            text,
            "an AoE address",
            "write shelf.slot, as 7.1, with a shelf of 0 to 65534 and a slot of 0 to 254",
        )
    })
}

/// `1000001` as `1,000,001`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn split_unit(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(at)
}

/// A number of digits with at most one point, neither signed nor in scientific form.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && text.bytes().any(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Serde for a type that is written as text, in the form of its `FromStr` and `Display`.
macro_rules! serde_as_text {
    ($($type:ty => $expecting:literal),+ $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

serde_as_text! {
    Size => "a size in quotes with its unit, as \"2G\"",
    Period => "a length of time in quotes with its unit, as \"120s\"",
}

/// An image's format by its name.
pub(super) fn format(text: &str) -> Result<Format, BadValue> {
    text.parse().map_err(|_| {
        let known: Vec<_> = Format::NAMES.iter().map(|(name, _)| *name).collect();
        BadValue::not(text, "an image format", format!("known are {}", known.join(", ")))
    })
}

/// A format as its name, for a report.
pub(super) fn serialize_format<S: serde::Serializer>(
    format: &Option<Format>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match format {
        Some(format) => serializer.collect_str(format),
        None => serializer.serialize_none(),
    }
}

/// Reads where an image is: a path, or an NBD server's export.
pub(super) fn location(text: &str) -> Result<Location, BadValue> {
    text.parse()
        .map_err(|error: kagero_target::BadUri| BadValue::not(text, "an NBD export", error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("2G".parse(), Ok(Size(2 << 30)));
        assert_eq!("512MiB".parse(), Ok(Size::mib(512)));
        assert_eq!("64k".parse(), Ok(Size(65_536)));
        for bad in ["", "2", "G", "2X", "-1G", "1.5G", "2 G", "99999999999T"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!(
            "2048".parse::<Size>().unwrap_err().to_string(),
            "\"2048\" is not a size: write it with its unit, as 512M or 2G"
        );
    }

    #[test]
    fn periods() {
        assert_eq!("120s".parse(), Ok(Period(Duration::from_secs(120))));
        assert_eq!("1.5s".parse(), Ok(Period(Duration::from_millis(1500))));
        assert_eq!("0.1ms".parse(), Ok(Period(Duration::from_micros(100))));
        assert_eq!("2m".parse(), Ok(Period(Duration::from_secs(120))));
        for bad in ["", "10", "s", "-1s", "1..2s", ".s", "1e3s", "inf", "10 s", "9999h"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address("7.1"), Ok(Address { shelf: 7, slot: 1 }));
        assert_eq!(
            address("7.255").unwrap_err().to_string(),
            "\"7.255\" is not an AoE address: \
             write shelf.slot, as 7.1, with a shelf of 0 to 65534 and a slot of 0 to 254"
        );
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000_001), "1,000,001");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(mib in 1u64..1 << 24, micros in 0u64..1 << 40) {
            let (size, period) = (Size::mib(mib), Period(Duration::from_micros(micros)));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (text.parse::<Size>(), text.parse::<Period>(), address(&text));
        }
    }
}
