//! The control socket's place in the file system.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::confine::User;
use crate::error::{Error, UserError};

/// Bytes in the path of a socket, at most, without the zero that ends it (unix(7)).
const LONGEST_PATH: usize = 107;

/// The name of a socket, which is taken away when this is dropped.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    /// What lies there, so that another server's is left alone.
    identity: Option<(u64, u64)>,
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // In a folder that we may not write to any more it stays; the next server replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let of = |metadata: Metadata| (metadata.dev(), metadata.ino());
    fs::symlink_metadata(path).ok().map(of)
}

/// Makes it the property of whom the server becomes.
pub(super) fn give(path: &Path, user: Option<&User>) -> io::Result<()> {
    user.map_or(Ok(()), |User { uid, gid, .. }| lchown(path, Some(uid.as_raw()), Some(gid.as_raw())))
}

/// Listens at `path`, for this user's processes alone. A socket that a dead server has left there is replaced.
pub(super) fn open(path: &Path, user: Option<&User>) -> Result<(UnixListener, Named), Error> {
    let wrong = |problem: &str, mend: &str| {
        Error::from(UserError::new(
            path.display(),
            format!("no control socket can be there: {problem}"),
            mend,
        ))
    };
    // The kernel takes one byte more, but not every client does.
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(wrong("the path is too long", "give one of 107 bytes at most"));
    }
    let address = SocketAddrUnix::new(path)
        .map_err(|error| wrong(&error.to_string(), "give another path with --control"))?;
    let failed = |error: Errno| match error {
        Errno::NOENT => wrong("there is no such folder", "make it with `mkdir`, or give another path"),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            wrong("its folder may not be written to", "give another path with --control")
        }
        other => wrong(&io::Error::from(other).to_string(), "give another path with --control"),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    // Before it has a name, so that there is no moment with another mode.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
            if !is_socket {
                return Err(wrong("something else has this name", "give another path with --control"));
            }
            // Somebody who answers, or may not be asked.
            if !UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            {
                return Err(wrong(
                    "another server listens there",
                    "end that first, or give this one a socket of its own with --control",
                ));
            }
            let _ = fs::remove_file(path);
            bind(&socket, &address).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    let named = Named { path: path.into(), identity: identity(path) };
    give(path, user).map_err(|error| wrong(&error.to_string(), "give another path with --control"))?;
    listen(&socket, 16).map_err(failed)?;
    Ok((socket.into(), named))
}
