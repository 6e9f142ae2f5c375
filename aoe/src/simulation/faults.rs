//! What can happen to a frame, and how often.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

/// How long a reordered frame is held back at most, so that later ones overtake it.
pub const REORDER_HOLD: Duration = Duration::from_millis(2);

/// A share of all frames, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// The whole.
    const WHOLE: u32 = 1_000_000;

    /// So many percent; 100 at most.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Share(if percent < 100 { percent * (Self::WHOLE / 100) } else { Self::WHOLE })
    }

    /// In millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// A time without any network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it begins, counted from the first frame.
    pub after: Duration,
    /// How long it lasts.
    pub length: Duration,
}

/// What happens to the frames of a [`Lane`](super::Lane), each independently of the others.
///
/// As text: `loss=5%,duplicate=1%,reorder=2%,delay=1ms,jitter=200us,corrupt=0.1%,outage=30s+10s`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never arrive.
    pub loss: Share,
    /// Arrive twice, one right behind the other, as from a switch that floods.
    pub duplicate: Share,
    /// Are held back for up to [`REORDER_HOLD`], so that later ones overtake them.
    pub reorder: Share,
    /// Are damaged in a way that the Ethernet checksum finds, and thus dropped; counted apart from loss.
    pub corrupt: Share,
    /// Arrive with a few bytes changed, as if the checksum had missed it. AoE has no other: this ends in wrong data, and is only for
    /// showing that nothing stops at it.
    pub garble: Share,
    /// How long each frame takes.
    pub delay: Duration,
    /// How much longer it takes at most, at random. Alone, it doesn't change the order of frames.
    pub jitter: Duration,
    /// A time in which all are lost.
    pub outage: Option<Outage>,
}

impl Faults {
    /// The longest time that a frame takes.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let hold = if self.reorder > Share::default() { REORDER_HOLD } else { Duration::ZERO };
        self.delay + self.jitter + hold
    }
}

/// A text that is no [`Faults`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFaultsError {
    /// The part of the text that is wrong.
    part: String,
    mend: &'static str,
}

impl fmt::Display for ParseFaultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault '{}': {}", self.part, self.mend)
    }
}

impl core::error::Error for ParseFaultsError {}

impl FromStr for Faults {
    type Err = ParseFaultsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut faults = Faults::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |mend| ParseFaultsError { part: part.into(), mend };
            let (name, value) = part.split_once('=').ok_or(wrong("write name=value, such as loss=5%"))?;
            let share = || share(value).ok_or(wrong("write a share of 0% to 100%, such as 0.5%"));
            let time =
                || duration(value).ok_or(wrong("write a time of up to an hour, such as 200us, 1ms or 2s"));
            match name {
                "loss" => faults.loss = share()?,
                "duplicate" => faults.duplicate = share()?,
                "reorder" => faults.reorder = share()?,
                "corrupt" => faults.corrupt = share()?,
                "garble" => faults.garble = share()?,
                "delay" => faults.delay = time()?,
                "jitter" => faults.jitter = time()?,
                "outage" => {
                    let (after, length) = value.split_once('+').unwrap_or((value, ""));
                    let outage = duration(after).zip(duration(length));
                    let (after, length) = outage.ok_or(wrong("write begin+length, such as 30s+10s"))?;
                    faults.outage = Some(Outage { after, length });
                }
                _ => {
                    return Err(wrong(
                        "there are loss, duplicate, reorder, corrupt, garble, delay, jitter and outage",
                    ));
                }
            }
        }
        Ok(faults)
    }
}

/// A decimal number with up to six places, in millionths.
fn millionths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || places.len() > 6 || !digits(whole) || !digits(places) {
        return None;
    }
    let scale = 10u64.pow(6 - places.len() as u32);
    let places = if places.is_empty() { 0 } else { places.parse::<u64>().ok()? * scale };
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(places)
}

fn share(text: &str) -> Option<Share> {
    let hundredths = millionths(text.strip_suffix('%')?)? / 100;
    u32::try_from(hundredths).ok().filter(|&share| share <= Share::WHOLE).map(Share)
}

fn duration(text: &str) -> Option<Duration> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    let (number, nanos) = units.iter().find_map(|&(unit, nanos)| Some((text.strip_suffix(unit)?, nanos)))?;
    let nanos = u128::from(millionths(number)?) * nanos / 1_000_000;
    u64::try_from(nanos).ok().map(Duration::from_nanos).filter(|&time| time <= Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn as_text() {
        let faults: Faults = "loss=5%,duplicate=1%,reorder=2%,delay=1ms".parse().unwrap();
        let expected = Faults {
            loss: Share::percent(5),
            duplicate: Share::percent(1),
            reorder: Share::percent(2),
            delay: Duration::from_millis(1),
            ..Faults::default()
        };
        assert_eq!(faults, expected);
        assert_eq!(faults.longest(), Duration::from_millis(1) + REORDER_HOLD);
        assert_eq!("".parse(), Ok(Faults::default()));
        let faults: Faults = "corrupt=0.25%, jitter=1.5us,outage=30s+10s,garble=100%".parse().unwrap();
        assert_eq!(faults.corrupt.millionths(), 2_500);
        assert_eq!(faults.jitter, Duration::from_nanos(1_500));
        let outage = Outage { after: Duration::from_secs(30), length: Duration::from_secs(10) };
        assert_eq!(faults.outage, Some(outage));
        assert_eq!(faults.garble, Share::percent(100));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in [
            "los=5%",
            "loss",
            "loss=5",
            "loss=101%",
            "loss=-1%",
            "loss=.5%",
            "loss=1.0000001%",
            "loss=99999999999999999999%",
            "delay=1",
            "delay=1m",
            "delay=3601s",
            "delay=s",
            "outage=3s",
            "outage=3s+",
        ] {
            let error = bad.parse::<Faults>().unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        let error = "delay=1ms,loss=5".parse::<Faults>().unwrap_err().to_string();
        assert_eq!(error, "fault 'loss=5': write a share of 0% to 100%, such as 0.5%");
    }
}
