//! Kagero.

pub mod cli;
pub mod config;
pub mod console;
pub mod discover;
pub mod error;
pub mod limit;
pub mod log;
pub mod progress;
pub mod report;
pub mod run;
pub mod serve;
pub mod session;
pub mod signals;
pub mod stop;
pub mod trace;
