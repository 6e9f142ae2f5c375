//! Faults that a link shall have on purpose: a developers' option.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kagero_aoe::simulation;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keyed::{self, Keyed};
use crate::error::{BadValue, nearest};

/// Faults for every frame, in each direction on its own: `loss=5%,duplicate=1%,reorder=2%,delay=1ms,seed=7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What happens to frames.
    pub network: simulation::Faults,
    /// Where the random numbers begin: the same seed, the same faults.
    pub seed: u64,
    /// What was given, by the place in [`PARTS`].
    parts: BTreeMap<usize, String>,
}

/// Those of the simulated network, and our own.
const PARTS: [&str; 9] =
    ["loss", "duplicate", "reorder", "corrupt", "garble", "delay", "jitter", "outage", "seed"];

impl Faults {
    /// Whether nothing is to go wrong.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.network == simulation::Faults::default()
    }

    fn text(&self) -> String {
        self.parts.values().map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

impl Keyed for Faults {
    const EXPECTING: &'static str = "faults, as \"loss=5%,delay=1ms\"";

    fn empty() -> Self {
        Self::default()
    }

    fn from_text(text: &str) -> Result<Self, BadValue> {
        let mut faults = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                BadValue::not(
                    part,
                    "a fault",
                    "write name=value, as loss=5%,duplicate=1%,reorder=2%,delay=1ms",
                )
            })?;
            faults.set(key, value)?;
        }
        Ok(faults)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), BadValue> {
        let Some(place) = PARTS.iter().position(|&part| part == key) else {
            let mend = match nearest(key, PARTS) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("known are {}", PARTS.join(", ")),
            };
            return Err(BadValue { problem: format!("\"{key}\" is an unknown fault"), mend });
        };
        if key == "seed" {
            self.seed = value
                .parse()
                .map_err(|_| BadValue::not(value, "a seed", "write a whole number, as seed=7"))?;
            return Ok(());
        }
        let wrong =
            |why: simulation::ParseFaultsError| BadValue { problem: why.to_string(), mend: String::new() };
        self.parts.insert(place, format!("{key}={value}"));
        self.network = self.text().parse().map_err(wrong)?;
        Ok(())
    }
}

impl FromStr for Faults {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::from_text(text)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.values().try_for_each(|part| write!(f, "{part},"))?;
        write!(f, "seed={}", self.seed)
    }
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Faults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        keyed::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_part_can_be_named_and_is_shown_again() {
        let text = "loss=5%,duplicate=1%,reorder=2%,delay=1ms,outage=30s+10s,seed=7";
        let faults: Faults = text.parse().unwrap();
        assert_eq!(faults.network.loss.millionths(), 50_000);
        assert_eq!(faults.network.delay, Duration::from_millis(1));
        assert_eq!(faults.to_string(), text);
        assert!(!faults.is_none());
        assert!("seed=7".parse::<Faults>().unwrap().is_none());
        for part in PARTS {
            let known = format!("{part}=nonsense").parse::<Faults>().unwrap_err().to_string();
            assert!(!known.contains("unknown"), "{known}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<Faults>().unwrap_err().to_string();
        assert_eq!(error("lost=5%"), "\"lost\" is an unknown fault: did you mean \"loss\"?");
        assert_eq!(error("loss=5"), "fault 'loss=5': write a share of 0% to 100%, such as 0.5%");
        assert_eq!(
            error("loss"),
            "\"loss\" is not a fault: write name=value, as loss=5%,duplicate=1%,reorder=2%,delay=1ms"
        );
        assert_eq!(error("seed=x"), "\"x\" is not a seed: write a whole number, as seed=7");
    }
}
