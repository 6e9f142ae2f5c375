//! Errors for people: one line that names the thing, what is wrong with it, and the mend.

use std::fmt::{self, Write as _};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// What was asked for can't be done as it was said: exit code 2, and nothing was begun.
    User(UserError),
    /// Something went wrong on the way: exit code 1.
    Failure(anyhow::Error),
}

impl Error {
    /// The process's exit code for this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::User(_) => 2,
            Error::Failure(_) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::User(error) => error.fmt(f),
            Error::Failure(error) => one_line(f, &format!("{error:#}")),
        }
    }
}

impl std::error::Error for Error {}

impl From<UserError> for Error {
    fn from(error: UserError) -> Self {
        Error::User(error)
    }
}

impl From<kagero_link::Error> for Error {
    /// What a link says is one line already; most of it is the user's to mend.
    fn from(error: kagero_link::Error) -> Self {
        match error {
            kagero_link::Error::Kernel { .. } => Error::Failure(error.into()),
            _ => Error::User(UserError::new("", error, "")),
        }
    }
}

impl From<kagero_target::Error> for Error {
    /// As with links.
    fn from(error: kagero_target::Error) -> Self {
        match error {
            kagero_target::Error::Kernel { .. }
            | kagero_target::Error::NotFlushed(_)
            | kagero_target::Error::StillBusy(_) => Error::Failure(error.into()),
            _ => Error::User(UserError::new("", error, "")),
        }
    }
}

impl From<kagero_vfio::Error> for Error {
    /// As with links.
    fn from(error: kagero_vfio::Error) -> Self {
        match error {
            kagero_vfio::Error::Kernel { .. } => Error::Failure(error.into()),
            _ => Error::User(UserError::new("", error, "")),
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<UserError>() {
            Ok(user) => Error::User(user),
            Err(other) => Error::Failure(other),
        }
    }
}

/// A mistake in what was asked for, or in what it needs: shown as `thing: problem: mend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError {
    /// What it is about, as the user named it: a file, an option, an interface; may be empty where the problem names it.
    pub thing: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it; may be empty where the problem says it.
    pub mend: String,
}

impl UserError {
    /// An error about `thing`.
    #[must_use]
    pub fn new(thing: impl fmt::Display, problem: impl fmt::Display, mend: impl fmt::Display) -> Self {
        Self { thing: thing.to_string(), problem: problem.to_string(), mend: mend.to_string() }
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.thing.is_empty() {
            one_line(f, &self.thing)?;
            f.write_str(": ")?;
        }
        one_line(f, &self.problem)?;
        if !self.mend.is_empty() {
            f.write_str(": ")?;
            one_line(f, &self.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for UserError {}

/// A value that can't be read: what is wrong with it and how to write it instead.
///
/// Option and configuration file parsers return it; whoever knows which option it was makes a [`UserError`] of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// What is wrong, with the value as it was given.
    pub problem: String,
    /// How to write it; may be empty where the problem says it.
    pub mend: String,
}

impl BadValue {
    /// The error for `value` that is not `what`.
    #[must_use]
    pub fn not(value: &str, what: &str, mend: impl Into<String>) -> Self {
        Self { problem: format!("\"{value}\" is not {what}"), mend: mend.into() }
    }

    /// The same error, said of `thing`.
    #[must_use]
    pub fn of(self, thing: impl fmt::Display) -> UserError {
        UserError { thing: thing.to_string(), problem: self.problem, mend: self.mend }
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mend.as_str() {
            "" => f.write_str(&self.problem),
            mend => write!(f, "{}: {mend}", self.problem),
        }
    }
}

impl std::error::Error for BadValue {}

/// Writes `text` so that a file name with a line break or a terminal sequence in it stays one harmless line.
fn one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// The known name nearest to `given`, when it is near enough to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.replace('_', "-").to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_the_file_is_called() {
        let error = UserError::new("a\n\x1b[2Jb.img", "no such image", "give the path of a raw disk image");
        assert_eq!(
            error.to_string(),
            "a\\n\\u{1b}[2Jb.img: no such image: give the path of a raw disk image"
        );
    }

    #[test]
    fn a_user_error_keeps_its_exit_code_through_anyhow() {
        let error = anyhow::Error::from(UserError::new("eth9", "no such interface", ""));
        assert_eq!(Error::from(error).exit_code(), 2);
        assert_eq!(Error::from(anyhow::anyhow!("the storage thread ended")).exit_code(), 1);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(nearest("memroy", ["memory", "report"]), Some("memory"));
        assert_eq!(nearest("read_only", ["read-only", "report"]), Some("read-only"));
        assert_eq!(nearest("graphics", ["memory", "report"]), None);
    }
}
