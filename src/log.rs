//! The log, on standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::error::UserError;

/// The environment variable with a filter: `debug`, or `kagero::storage=trace,info`.
pub const VARIABLE: &str = "KAGERO_LOG";

/// Starts the log: warnings and what people should know; more with each `verbose`, only errors when `quiet`.
///
/// [`VARIABLE`] decides when it is set.
///
/// # Errors
/// When the variable can't be understood.
pub fn start(verbose: u8, quiet: bool) -> Result<(), UserError> {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => parse(&text)?,
        _ => Targets::new().with_default(level),
    };
    let lines = fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_timer(fmt::time::uptime())
        .with_target(verbose > 0)
        .compact();
    // Fails only when a log was started before, as a test may have done.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Ok(())
}

/// Writes to standard error as it is. A reader that has gone is no reason to stop.
pub fn say(text: impl Display) {
    let _ = write!(stderr(), "{text}");
}

fn parse(text: &str) -> Result<Targets, UserError> {
    text.parse().map_err(|_| {
        UserError::new(
            VARIABLE,
            format!("\"{text}\" is not a log filter"),
            "write a level or module=level pairs, as debug or kagero::storage=trace,info",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filter = parse("kagero::storage=trace,info").unwrap();
        assert!(filter.would_enable("kagero::storage", &tracing::Level::TRACE));
        assert!(!filter.would_enable("kagero::bus", &tracing::Level::DEBUG));
        assert_eq!(
            parse("kagero=loud").unwrap_err().to_string(),
            "KAGERO_LOG: \"kagero=loud\" is not a log filter: \
             write a level or module=level pairs, as debug or kagero::storage=trace,info"
        );
    }
}
