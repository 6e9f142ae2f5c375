//! From reset to a running operating system: firmware, or a kernel directly.

pub mod firmware;
pub mod kernel;
