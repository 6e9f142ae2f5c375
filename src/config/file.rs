//! Configuration files: TOML whose keys are the long names of the flags.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::error::{UserError, nearest};

/// More than anyone writes by hand.
const LARGEST: u64 = 1 << 20;

/// Reads `path`, whose top level may have the `known` keys.
///
/// # Errors
/// When the file can't be read, or with the number of the first line that is wrong.
pub fn load<T: DeserializeOwned>(path: &Path, known: &[String]) -> Result<T, UserError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            UserError::new(path.display(), "no such configuration file", "check the path after --config")
        }
        std::io::ErrorKind::InvalidData => {
            UserError::new(path.display(), "the configuration is not UTF-8 text", "it has to be a TOML file")
        }
        _ => UserError::new(
            path.display(),
            format!("can't read the configuration: {error}"),
            "name a TOML file after --config",
        ),
    })?;
    if text.len() as u64 > LARGEST {
        return Err(UserError::new(
            path.display(),
            format!("too large for a configuration, which has {} KiB at most", LARGEST >> 10),
            "name a TOML file after --config",
        ));
    }
    parse(path, &text, known)
}

/// As [`load`], with the file's text at hand.
///
/// # Errors
/// With the number of the first line that is wrong.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str, known: &[String]) -> Result<T, UserError> {
    let place = |span: Option<Range<usize>>| {
        let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
        format!("{}:{}", path.display(), before.matches('\n').count() + 1)
    };
    let wrong = |error: toml::de::Error| UserError::new(place(error.span()), error.message(), "");

    let table = DeTable::parse(text).map_err(wrong)?;
    let mut unknown: Vec<_> =
        table.get_ref().keys().filter(|key| !known.iter().any(|name| name == key.get_ref())).collect();
    unknown.sort_by_key(|key| key.span().start);
    if let Some(key) = unknown.first() {
        let mend = match nearest(key.get_ref(), known.iter().map(String::as_str)) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("known are {}", known.join(", ")),
        };
        return Err(UserError::new(
            place(Some(key.span())),
            format!("\"{}\" is an unknown key", key.get_ref()),
            mend,
        ));
    }
    toml::from_str(text).map_err(wrong)
}
