//! What the kernel says of a network interface.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::Error;
use crate::sys::{self, Name};

/// The least MTU: a data frame of two sectors, 22 bytes of AoE header and ATA argument and 1,024 of data, with some room.
pub const LEAST_MTU: usize = 1_100;

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: both have a 14-byte Ethernet header.
const ETHERNET_LIKE: [u16; 2] = [1, 772];

/// A network interface, as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub index: i32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: usize,
    /// Whether it is administratively up.
    pub up: bool,
}

impl Interface {
    /// Asks the kernel about an interface.
    ///
    /// # Errors
    /// [`Error::NoInterface`] and [`Error::NotEthernet`].
    pub fn find(name: &str) -> Result<Self, Error> {
        let none = || Error::NoInterface { name: name.into(), others: names() };
        let kernel = |source| Error::Kernel { name: name.into(), doing: "query it", source };
        let key = Name::new(name).ok_or_else(none)?;
        // Any socket will do to ask; this kind needs no permission.
        let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| kernel(e.into()))?;
        let index = sys::index(&fd, key).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV) => none(),
            _ => kernel(e),
        })?;
        let (kind, mac) = sys::hardware(&fd, key).map_err(kernel)?;
        if !ETHERNET_LIKE.contains(&kind) {
            return Err(Error::NotEthernet(name.into()));
        }
        let mtu = sys::mtu(&fd, key).map_err(kernel)?;
        let up = sys::is_up(&fd, key).map_err(kernel)?;
        Ok(Interface { name: name.into(), index, mac, mtu, up })
    }

    /// As [`find`](Self::find), and checks that AoE can be spoken there now.
    ///
    /// # Errors
    /// Also [`Error::Down`] and [`Error::SmallMtu`].
    pub fn ready(name: &str) -> Result<Self, Error> {
        let interface = Self::find(name)?;
        if !interface.up {
            return Err(Error::Down(name.into()));
        }
        if interface.mtu < LEAST_MTU {
            return Err(Error::SmallMtu { name: name.into(), mtu: interface.mtu });
        }
        Ok(interface)
    }

    /// The MTU now, asked through any socket.
    pub(crate) fn mtu_now(&self, fd: impl AsFd) -> io::Result<usize> {
        let name = Name::new(&self.name).ok_or(io::ErrorKind::InvalidInput)?;
        sys::mtu(fd, name)
    }
}

/// Names, sorted, of the interfaces in this thread's network namespace; none when they can't be listed.
#[must_use]
pub fn names() -> Vec<String> {
    // Not /sys/class/net: that shows the namespace in which it was mounted.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let mut names: Vec<String> = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().into())
        .collect();
    names.sort_unstable();
    names
}
