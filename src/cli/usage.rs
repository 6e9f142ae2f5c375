//! What clap has to say about a command line, in our one line.

use std::ffi::OsString;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{BadValue, UserError};

/// Prints help, the version or an error; gives the exit code.
pub(super) fn report(error: &Error, arguments: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no reason to complain.
            let _ = error.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            2
        }
        _ => {
            crate::log::say(format_args!("kagero: {}\n", one_line(error, arguments)));
            2
        }
    }
}

/// The error without usage lines and colours.
fn one_line(error: &Error, arguments: &[OsString]) -> UserError {
    let said = |kind| error.get(kind).map(plain);
    let argument = said(ContextKind::InvalidArg).unwrap_or_default();
    // `--memory <SIZE>` is `--memory` to its user.
    let name = match argument.strip_prefix('-') {
        Some(_) => argument.split([' ', '[', '=']).next().unwrap_or(&argument),
        None => argument.trim_matches(['[', ']', '<', '>', '.']),
    };
    let suggestion = |kind| {
        said(kind).filter(|near| !near.is_empty()).map_or_else(
            || "see `kagero --help` for what there is".to_owned(),
            |near| format!("did you mean {near}?"),
        )
    };
    match error.kind() {
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error);
            match cause.and_then(|cause| cause.downcast_ref::<BadValue>()) {
                Some(bad) => bad.clone().of(name),
                None => {
                    let value = said(ContextKind::InvalidValue).unwrap_or_default();
                    let why = cause.map(ToString::to_string).unwrap_or_default();
                    UserError::new(name, format!("\"{value}\" can't be used"), why)
                }
            }
        }
        ErrorKind::InvalidValue => {
            // Also what clap calls a missing value.
            let given = said(ContextKind::InvalidValue).unwrap_or_default();
            if given.is_empty() {
                UserError::new(name, "a value is missing", format!("write {argument}"))
            } else {
                let valid = said(ContextKind::ValidValue).unwrap_or_default();
                UserError::new(name, format!("\"{given}\" is unknown here"), format!("known are {valid}"))
            }
        }
        ErrorKind::InvalidUtf8 => {
            // It is not said which one; paths alone may be so, and not all of them.
            let odd = arguments.iter().find(|word| word.to_str().is_none());
            UserError::new(
                odd.map(|word| word.to_string_lossy()).unwrap_or_default(),
                "not UTF-8 text",
                "give the file another name, or a symbolic link with one",
            )
        }
        ErrorKind::UnknownArgument if !argument.starts_with('-') => UserError::new(
            argument,
            "nothing is expected here",
            "disks are given with --disk; see `kagero --help`",
        ),
        ErrorKind::UnknownArgument => {
            UserError::new(name, "unknown option", suggestion(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidSubcommand => UserError::new(
            said(ContextKind::InvalidSubcommand).unwrap_or_default(),
            "unknown command",
            suggestion(ContextKind::SuggestedSubcommand),
        ),
        ErrorKind::ArgumentConflict => {
            let other = said(ContextKind::PriorArg).unwrap_or_default();
            if other.is_empty() || other == argument {
                UserError::new(name, "given twice", "give it once")
            } else {
                UserError::new(name, format!("can't be used with {other}"), "leave out one of them")
            }
        }
        ErrorKind::MissingRequiredArgument => {
            UserError::new(name, "is needed here", "see `kagero --help` for examples")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            UserError::new(
                "command line",
                first.strip_prefix("error: ").unwrap_or(first),
                "see `kagero --help`",
            )
        }
    }
}

fn plain(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(", "),
        ContextValue::StyledStr(text) => text.to_string(),
        ContextValue::StyledStrs(texts) => {
            texts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        ContextValue::Number(number) => number.to_string(),
        ContextValue::Bool(truth) => truth.to_string(),
        _ => String::new(),
    }
}
