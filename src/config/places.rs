//! Where a server keeps what outlives it, and where it can be talked to.

use std::convert::Infallible;
use std::env::var_os;
use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::units::serde_as_text;
use crate::error::BadValue;

/// The control socket of root's server.
const CONTROL: &str = "/run/kagero/serve.sock";

/// Where root's server keeps settings, once somebody has made it.
const STATE: &str = "/var/lib/kagero";

/// A file or folder that has a usual place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The usual one, as far as it can be used.
    #[default]
    Usual,
    /// There is to be none.
    None,
    /// This one.
    At(PathBuf),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "none" => Place::None,
            path => Place::At(path.into()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Usual => Ok(()),
            Place::None => f.write_str("none"),
            Place::At(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    /// The same, with a relative path that starts at `folder`.
    #[must_use]
    pub fn starting_at(self, folder: &Path) -> Self {
        match self {
            Place::At(path) => Place::At(folder.join(path)),
            Place::Usual | Place::None => self,
        }
    }
}

/// An address of this machine and a port, written `127.0.0.1:9100` or `[::1]:9100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |_| BadValue::not(text, "an address to listen on", "write ADDRESS:PORT, as 127.0.0.1:9100");
        text.parse().map(Listen).map_err(bad)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text! {
    Place => "the path of a file or folder in quotes, or \"none\"",
    Listen => "an address and a port in quotes, as \"127.0.0.1:9100\"",
}

/// Where a server usually puts its control socket, and whether it makes that folder if need be: systemd's runtime folder for the service, else
/// root's place, else the user's runtime folder. None for a user without one.
pub(crate) fn usual_control() -> Option<PathBuf> {
    if let Some(folder) = first("RUNTIME_DIRECTORY") {
        return Some(folder.join("serve.sock"));
    }
    if rustix::process::geteuid().is_root() { Some(CONTROL.into()) } else { users_control() }
}

/// The control socket that somebody means who names none: the user's own server, if there is one, else root's.
pub(crate) fn control_to_ask() -> PathBuf {
    let own = if rustix::process::geteuid().is_root() { None } else { users_control() };
    own.filter(|path| path.exists()).unwrap_or_else(|| CONTROL.into())
}

fn users_control() -> Option<PathBuf> {
    Some(first("XDG_RUNTIME_DIR")?.join("kagero/serve.sock"))
}

/// Where a server usually keeps settings: systemd's state folder for the service, else root's place, where that is there and may be written to.
pub(crate) fn usual_state() -> Option<PathBuf> {
    first("STATE_DIRECTORY").or_else(|| {
        let rights = Access::WRITE_OK | Access::EXEC_OK;
        accessat(CWD, STATE, rights, AtFlags::EACCESS).is_ok().then(|| STATE.into())
    })
}

/// The first of the paths in a variable that systemd or a log-in sets.
fn first(variable: &str) -> Option<PathBuf> {
    let paths = var_os(variable)?;
    let path = std::env::split_paths(&paths).next()?;
    (path.as_os_str() != OsStr::new("")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_addresses() {
        assert_eq!("none".parse(), Ok(Place::None));
        let place: Place = "run/a.sock".parse().unwrap();
        assert_eq!(place.starting_at(Path::new("/etc")), Place::At("/etc/run/a.sock".into()));
        assert_eq!("[::1]:9100".parse::<Listen>().unwrap().to_string(), "[::1]:9100");
        assert_eq!(
            "localhost".parse::<Listen>().unwrap_err().to_string(),
            "\"localhost\" is not an address to listen on: write ADDRESS:PORT, as 127.0.0.1:9100"
        );
    }
}
