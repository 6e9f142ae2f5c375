//! How people name an NBD export: the URIs of the NBD project's document uri.md.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port that IANA gave NBD.
const PORT: u16 = 10_809;

/// The longest string of the protocol (proto.md, "Conventions").
const LONGEST_NAME: usize = 4_096;

/// An export of an NBD server: `nbd://host:10809/name`, or `nbd+unix:///name?socket=/run/x.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    pub(super) server: ServerAddress,
    pub(super) name: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerAddress {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text names no NBD export, and how to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// `nbds`, which is NBD over TLS.
    #[error(
        "TLS is not there: let a qemu-nbd or nbdkit on this machine speak it, and name that one's socket"
    )]
    Tls,
    /// No host after `nbd://`.
    #[error("it lacks the host: write nbd://HOST:PORT/NAME")]
    NoHost,
    /// A port that is no number.
    #[error("its port is no number from 1 to 65535: write nbd://HOST:PORT/NAME")]
    Port,
    /// `nbd+unix` without `socket=`.
    #[error("it lacks the socket: write nbd+unix:///NAME?socket=PATH")]
    NoSocket,
    /// `nbd+unix` with a host.
    #[error("a socket is on no other host: write nbd+unix:///NAME?socket=PATH, with three slashes")]
    SocketHost,
    /// A parameter that says nothing to us.
    #[error("the only parameter known is socket= with nbd+unix: leave the others out")]
    Parameter,
    /// A `%` without two hexadecimal digits, no UTF-8, a NUL, or far too long.
    #[error("its name or socket can't be read: write %20 for a blank, %25 for a percent sign")]
    Text,
}

impl NbdUri {
    /// Whether a text is meant to be one: whether it begins as one.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        ["nbd:", "nbd+unix:", "nbds:", "nbds+unix:"].iter().any(|scheme| text.starts_with(scheme))
    }

    /// Whether the server's host has a name that has to be looked up.
    #[must_use]
    pub fn names_host(&self) -> bool {
        match &self.server {
            ServerAddress::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
            ServerAddress::Unix(_) => false,
        }
    }

    /// Lets a relative path of a socket start at `folder`.
    pub(crate) fn start_at(&mut self, folder: &Path) {
        if let ServerAddress::Unix(socket) = &mut self.server {
            *socket = folder.join(&socket);
        }
    }
}

impl FromStr for NbdUri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        if text.starts_with("nbds") {
            return Err(BadUri::Tls);
        }
        let (unix, rest) = match (text.strip_prefix("nbd+unix://"), text.strip_prefix("nbd://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if text.starts_with("nbd+unix") => return Err(BadUri::NoSocket),
            (None, None) => return Err(BadUri::NoHost),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        let name = String::from_utf8(decoded(name)?).map_err(|_| BadUri::Text)?;
        if name.len() > LONGEST_NAME {
            return Err(BadUri::Text);
        }
        let server = if unix {
            if !authority.is_empty() {
                return Err(BadUri::SocketHost);
            }
            match query.split_once('=') {
                Some(("socket", path)) if path.contains('&') => return Err(BadUri::Parameter),
                Some(("socket", "")) | None => return Err(BadUri::NoSocket),
                Some(("socket", path)) => ServerAddress::Unix(OsStr::from_bytes(&decoded(path)?).into()),
                Some(_) => return Err(BadUri::Parameter),
            }
        } else {
            if !query.is_empty() {
                return Err(BadUri::Parameter);
            }
            tcp(authority)?
        };
        Ok(NbdUri { server, name })
    }
}

/// Reads `host`, `host:port`, `[::1]` or `[::1]:port`. A user's name is for TLS, and not looked at.
fn tcp(authority: &str) -> Result<ServerAddress, BadUri> {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or(BadUri::Port)?)),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(BadUri::NoHost);
    }
    let port = match port {
        None | Some("") => PORT,
        Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or(BadUri::Port)?,
    };
    let host = String::from_utf8(decoded(host)?).map_err(|_| BadUri::Text)?;
    Ok(ServerAddress::Tcp { host, port })
}

/// Percent encoding undone (RFC 3986, 2.1).
fn decoded(text: &str) -> Result<Vec<u8>, BadUri> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit().ok_or(BadUri::Text)?, digit().ok_or(BadUri::Text)?);
                (high << 4 | low) as u8
            }
            other => other,
        };
        if byte == 0 {
            return Err(BadUri::Text);
        }
        out.push(byte);
    }
    Ok(out)
}

/// Writes all but what stands for itself in a path as percent and two digits.
fn encode(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/-._~:@+,=".contains(&byte) {
            f.write_char(byte.into())?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            ServerAddress::Tcp { host, port } => {
                f.write_str("nbd://")?;
                if host.contains(':') {
                    write!(f, "[{host}]")?;
                } else {
                    encode(f, host.as_bytes())?;
                }
                if *port != PORT {
                    write!(f, ":{port}")?;
                }
                f.write_char('/')?;
                encode(f, self.name.as_bytes())
            }
            ServerAddress::Unix(socket) => {
                f.write_str("nbd+unix:///")?;
                encode(f, self.name.as_bytes())?;
                f.write_str("?socket=")?;
                encode(f, socket.as_os_str().as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, name: &str) -> NbdUri {
        NbdUri { server: ServerAddress::Tcp { host: host.into(), port }, name: name.into() }
    }

    #[test]
    fn the_examples_of_the_document() {
        let good = [
            ("nbd://example.com:10809/disk", tcp("example.com", 10_809, "disk")),
            ("nbd://example.com", tcp("example.com", 10_809, "")),
            ("nbd://example.com/", tcp("example.com", 10_809, "")),
            ("nbd://example.com//disk", tcp("example.com", 10_809, "/disk")),
            ("nbd://example.com/hello%20world", tcp("example.com", 10_809, "hello world")),
            ("nbd://someone@[fe80::1]:99/a/b", tcp("fe80::1", 99, "a/b")),
        ];
        for (text, uri) in good.clone() {
            assert_eq!(text.parse(), Ok(uri.clone()), "{text}");
            assert_eq!(uri.to_string().parse(), Ok(uri), "{text}");
        }
        let with_name = good.map(|(_, uri)| uri.names_host());
        assert_eq!(with_name, [true, true, true, true, true, false]);
        let mut uri: NbdUri = "nbd+unix:///disk?socket=run/a%3Fb.sock".parse().unwrap();
        assert!(!uri.names_host());
        let unix = |path: &str| NbdUri { server: ServerAddress::Unix(path.into()), name: "disk".into() };
        assert_eq!(uri, unix("run/a?b.sock"));
        assert_eq!(uri.to_string(), "nbd+unix:///disk?socket=run/a%3Fb.sock");
        uri.start_at("/etc".as_ref());
        assert_eq!(uri, unix("/etc/run/a?b.sock"));
        uri.start_at("/var".as_ref());
        assert_eq!(uri, unix("/etc/run/a?b.sock"));
    }

    #[test]
    fn what_names_no_export() {
        let bad = [
            ("nbd:", BadUri::NoHost),
            ("nbd:///disk", BadUri::NoHost),
            ("nbd://:5/disk", BadUri::NoHost),
            ("nbd://a:0/disk", BadUri::Port),
            ("nbd://a:70000/disk", BadUri::Port),
            ("nbd://[::1]9/disk", BadUri::Port),
            ("nbd://a/disk?socket=b", BadUri::Parameter),
            ("nbd://a/%zz", BadUri::Text),
            ("nbd://a/%", BadUri::Text),
            ("nbd://a/a%00", BadUri::Text),
            ("nbd://a/%ff", BadUri::Text),
            ("nbds://a/disk", BadUri::Tls),
            ("nbds+unix:///disk?socket=a", BadUri::Tls),
            ("nbd+unix:/a.sock", BadUri::NoSocket),
            ("nbd+unix:///disk", BadUri::NoSocket),
            ("nbd+unix:///disk?socket=", BadUri::NoSocket),
            ("nbd+unix:///disk?sock=a", BadUri::Parameter),
            ("nbd+unix:///disk?socket=a&tls-type=psk", BadUri::Parameter),
            ("nbd+unix://host/disk?socket=a", BadUri::SocketHost),
        ];
        for (text, error) in bad {
            assert!(NbdUri::is_meant(text), "{text}");
            assert_eq!(text.parse::<NbdUri>(), Err(error), "{text}");
        }
        assert!(!NbdUri::is_meant("./nbd://a") && !NbdUri::is_meant("nbd.img"));
    }
}
