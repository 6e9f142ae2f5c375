//! How long answers take, and from that how long to wait for one (RFC 6298).

use core::time::Duration;

/// How long to wait before there is any measurement. RFC 6298 says a second, for the Internet; this is one Ethernet.
const INITIAL: Duration = Duration::from_millis(200);

/// The clock granularity G of RFC 6298, 2.3: what the caller's timers and threads can be trusted with.
const GRANULARITY: Duration = Duration::from_millis(1);

/// Round-trip times, measured and smoothed.
///
/// Every transmission has a tag of its own, so each sample belongs to exactly one of them: Karn's rule, to leave out what was sent twice,
/// is not needed.
#[derive(Clone, Debug, Default)]
pub struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    min: Duration,
    max: Duration,
    total: Duration,
    samples: u64,
}

impl RoundTrip {
    /// Takes a measurement.
    pub(crate) fn sample(&mut self, time: Duration) {
        if self.samples == 0 {
            self.smoothed = time;
            self.variation = time / 2;
            self.min = time;
        } else {
            // RFC 6298, 2.3: beta is 1/4 and alpha is 1/8; the variation takes the old smoothed value.
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(time)) / 4;
            self.smoothed = (self.smoothed * 7 + time) / 8;
        }
        self.min = self.min.min(time);
        self.max = self.max.max(time);
        self.total = self.total.saturating_add(time);
        self.samples += 1;
    }

    /// How long an answer can be expected to take at most; without the lower and upper bounds of a retransmission timer.
    pub(crate) fn timeout(&self) -> Duration {
        if self.samples == 0 { INITIAL } else { self.smoothed + (self.variation * 4).max(GRANULARITY) }
    }

    /// How many measurements there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The shortest, zero when there is none.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.min
    }

    /// The longest, zero when there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The mean over all, zero when there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos() / u128::from(self.samples.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The moving average that the retransmission timer builds on.
    #[must_use]
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn follows_rfc_6298() {
        let mut times = RoundTrip::default();
        assert_eq!(times.timeout(), INITIAL);
        times.sample(8 * MS);
        // 2.2: SRTT = R, RTTVAR = R/2.
        assert_eq!(times.timeout(), 8 * MS + 4 * 4 * MS);
        times.sample(16 * MS);
        // 2.3: RTTVAR = 3/4 * 4 + 1/4 * |8 - 16| = 5, SRTT = 7/8 * 8 + 1/8 * 16 = 9.
        assert_eq!(times.timeout(), 9 * MS + 20 * MS);
        assert_eq!((times.min(), times.max(), times.mean(), times.samples()), (8 * MS, 16 * MS, 12 * MS, 2));
    }

    #[test]
    fn steady_times_leave_the_granularity() {
        let mut times = RoundTrip::default();
        for _ in 0..100 {
            times.sample(Duration::from_micros(100));
        }
        assert_eq!(times.timeout(), Duration::from_micros(1100));
    }
}
