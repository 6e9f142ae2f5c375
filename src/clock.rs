//! The machine's monotonic clock, handed to devices and protocol as an argument.

use std::sync::LazyLock;

use kagero_devices::time::Instant;

static ORIGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Now, counted from the first call in this process.
pub fn now() -> Instant {
    Instant::from_nanos(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
