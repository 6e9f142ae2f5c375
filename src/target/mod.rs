//! The control plane of `kagero serve`: what may be asked of it while it runs, over a socket and by `kagero target`, and its metrics.
//! docs/control.md describes both.

mod ask;
mod carry_out;
mod doors;
mod http;
mod metrics;
mod protocol;
pub mod show;
mod socket;

pub use ask::ask;
pub(crate) use carry_out::{ControlPlane, Daemon};
pub use metrics::prometheus;
pub use protocol::{Complaint, ExportStatus, ExportWork, Listing, Reply, Request, Statistics, Work};

/// A request or an answer to it, at most, in bytes.
const LONGEST_LINE: usize = 64 << 10;
