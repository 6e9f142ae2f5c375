//! Kagero.

pub mod boot;
