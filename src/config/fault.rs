//! Faults that a link shall have on purpose: a developers' option.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keyed::{self, Keyed};
use super::units::{Chance, Period};
use crate::error::BadValue;

/// Faults injected into every AoE frame, in each direction on its own: `loss=5%,duplicate=1%,reorder=2%,delay=1ms,seed=7`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that vanish.
    pub loss: Chance,
    /// Frames that arrive twice.
    pub duplicate: Chance,
    /// Frames that a later one overtakes.
    pub reorder: Chance,
    /// How much later every frame arrives.
    pub delay: Duration,
    /// Where the random numbers begin: the same seed, the same faults.
    pub seed: u64,
}

const PARTS: [&str; 5] = ["loss", "duplicate", "reorder", "delay", "seed"];

impl Faults {
    /// Whether nothing is to go wrong.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let Self { loss, duplicate, reorder, delay, seed: _ } = self;
        [loss, duplicate, reorder].iter().all(|chance| chance.per_million == 0) && delay.is_zero()
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
        match key {
            "loss" => self.loss = value.parse()?,
            "duplicate" => self.duplicate = value.parse()?,
            "reorder" => self.reorder = value.parse()?,
            "delay" => self.delay = value.parse::<Period>()?.0,
            "seed" => {
                self.seed =
                    value.parse().map_err(|_| BadValue::not(value, "a seed", "write a whole number"))?;
            }
            _ => return Err(keyed::unknown_part(key, &PARTS)),
        }
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
        let Self { loss, duplicate, reorder, delay, seed } = *self;
        write!(f, "loss={loss},duplicate={duplicate},reorder={reorder},delay={},seed={seed}", Period(delay))
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
    use super::*;

    #[test]
    fn every_part_can_be_named_and_is_shown_again() {
        let text = "loss=5%,duplicate=1%,reorder=2%,delay=1ms,seed=7";
        let faults: Faults = text.parse().unwrap();
        assert_eq!(faults.loss.per_million, 50_000);
        assert_eq!(faults.delay, Duration::from_millis(1));
        assert_eq!(faults.to_string(), text);
        assert!(!faults.is_none());
        assert!("seed=7".parse::<Faults>().unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<Faults>().unwrap_err().to_string();
        assert_eq!(error("lost=5%"), "\"lost\" is unknown here: did you mean \"loss\"?");
        assert_eq!(error("loss=5"), "\"5\" is not a percentage from 0% to 100%: write it as 5% or 0.1%");
        assert_eq!(
            error("loss"),
            "\"loss\" is not a fault: write name=value, as loss=5%,duplicate=1%,reorder=2%,delay=1ms"
        );
    }
}
