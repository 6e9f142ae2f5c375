//! Why an NBD export can't be served.

use std::io;

/// Why an NBD export can't be served, as [`Error::Nbd`](crate::Error::Nbd) goes on after its name.
#[derive(Debug, thiserror::Error)]
pub enum NbdRefusal {
    /// There is nobody, or nobody we can reach.
    #[error("no server answers ({0}): start it, or check the host and port, or the socket's path")]
    Unreachable(io::Error),
    /// There is a socket, and it is not for us.
    #[error(
        "no permission to reach the server ({0}): the socket has to be open for writing, and each folder above it for search, to the user that serves"
    )]
    Forbidden(io::Error),
    /// The connection broke while it was being set up.
    #[error(
        "the connection ends before the export is open ({0}): check the server's log, and that it speaks NBD"
    )]
    Broken(io::Error),
    /// It says what no NBD server may say.
    #[error(
        "what answers there speaks no NBD that we know ({0}): check the host and port, or the socket's path"
    )]
    Protocol(String),
    /// It knows only the protocol's first form.
    #[error(
        "the server speaks only NBD's old style: use one that speaks the fixed new style, as qemu-nbd does"
    )]
    OldStyle,
    /// Its exports have other names.
    #[error("the server has no export \"{0}\": `qemu-nbd --list` shows what it has")]
    UnknownName(String),
    /// It wants to be spoken to in TLS.
    #[error(
        "the server demands TLS, which is not there: let a qemu-nbd or nbdkit on this machine speak it, and name that one's socket"
    )]
    Tls,
    /// It says no, for a reason of its own.
    #[error("the server refuses ({0}): check its log")]
    Refused(String),
    /// The export has no bytes.
    #[error("it is empty: give it a size")]
    Empty,
    /// The export's size is not whole sectors.
    #[error("it has {0} bytes, not a multiple of 512: is it a disk? If so, make it larger")]
    NotSectors(u64),
    /// The server's requests must have sizes that we can't give them.
    #[error(
        "the server claims blocks of {minimum} to {maximum} bytes in {size}, which can't be: check the server"
    )]
    BlockSize {
        /// The claimed minimum in bytes.
        minimum: u32,
        /// The claimed maximum in bytes.
        maximum: u32,
        /// The export's size in bytes.
        size: u64,
    },
    /// The server lets nobody write to it.
    #[error("the server offers it read-only: add read-only, or overlay=DIRECTORY for writes")]
    ReadOnly,
    /// Nothing tells the server to write to the medium.
    #[error(
        "the server knows neither flush nor FUA, so no write would be sure to last: add read-only, or overlay=DIRECTORY for writes"
    )]
    NoFlush,
    /// After the connection was lost, the server has another disk there.
    #[error("it came back as another disk ({0} differs): bring the old one back, or start anew")]
    Changed(&'static str),
}

impl From<io::Error> for NbdRefusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Protocol(error.to_string()),
            _ => Self::Broken(error),
        }
    }
}
