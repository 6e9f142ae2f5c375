//! The kernel calls that no safe library offers: packet socket options and the interface ioctls.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// An interface name as the kernel takes it: up to 15 bytes and a zero.
#[derive(Clone, Copy)]
pub(crate) struct Name([libc::c_char; libc::IFNAMSIZ]);

impl Name {
    /// `None` when no interface can have this name.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return None;
        }
        let mut out = [0; libc::IFNAMSIZ];
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Some(Name(out))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs an ioctl that takes an `ifreq` and may write to it.
fn request(fd: BorrowedFd<'_>, op: libc::Ioctl, req: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `fd` is open, and every `op` used in this module reads or writes one `ifreq` and nothing else.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), op, std::ptr::from_mut(req)) })
}

fn empty_request(name: Name) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid `ifreq`: integers, and a pointer that nothing here follows.
    let mut req: libc::ifreq = unsafe { zeroed() };
    req.ifr_name = name.0;
    req
}

/// Index of the interface, by which packet sockets are bound.
pub(crate) fn index(fd: impl AsFd, name: Name) -> io::Result<i32> {
    let mut req = empty_request(name);
    request(fd.as_fd(), libc::SIOCGIFINDEX as libc::Ioctl, &mut req)?;
    // SAFETY: SIOCGIFINDEX filled this field.
    Ok(unsafe { req.ifr_ifru.ifru_ifindex })
}

/// Hardware type (`ARPHRD_*`) and address.
pub(crate) fn hardware(fd: impl AsFd, name: Name) -> io::Result<(u16, [u8; 6])> {
    let mut req = empty_request(name);
    request(fd.as_fd(), libc::SIOCGIFHWADDR as libc::Ioctl, &mut req)?;
    // SAFETY: SIOCGIFHWADDR filled this field.
    let addr = unsafe { req.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(addr.sa_data) {
        *to = from as u8;
    }
    Ok((addr.sa_family, mac))
}

/// MTU in bytes.
pub(crate) fn mtu(fd: impl AsFd, name: Name) -> io::Result<usize> {
    let mut req = empty_request(name);
    request(fd.as_fd(), libc::SIOCGIFMTU as libc::Ioctl, &mut req)?;
    // SAFETY: SIOCGIFMTU filled this field.
    Ok(usize::try_from(unsafe { req.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

/// Whether the interface is administratively up.
pub(crate) fn is_up(fd: impl AsFd, name: Name) -> io::Result<bool> {
    let mut req = empty_request(name);
    request(fd.as_fd(), libc::SIOCGIFFLAGS as libc::Ioctl, &mut req)?;
    // SAFETY: SIOCGIFFLAGS filled this field.
    Ok(i32::from(unsafe { req.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0)
}

/// Makes the tap of this name behind an open `/dev/net/tun`, or attaches to a persistent one.
pub(crate) fn attach_tap(fd: impl AsFd, name: Name) -> io::Result<()> {
    let mut req = empty_request(name);
    req.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    request(fd.as_fd(), libc::TUNSETIFF, &mut req)
}

/// Sets a packet socket option that is a plain value or structure.
pub(crate) fn set_packet_option<T: Copy>(fd: impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for the size given.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Asks the interface to let through frames for all stations, for as long as the packet socket is open.
pub(crate) fn join_promiscuous(fd: impl AsFd, index: i32) -> io::Result<()> {
    let kind = libc::PACKET_MR_PROMISC as libc::c_ushort;
    let request = libc::packet_mreq { mr_ifindex: index, mr_type: kind, mr_alen: 0, mr_address: [0; 8] };
    set_packet_option(fd, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// What identifies the group of sockets that share their frames with this one, to the option that joins it.
pub(crate) fn fanout_group(fd: impl AsFd) -> io::Result<u32> {
    let mut group = 0u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: `group` is writable for `len` bytes.
    check(unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut group).cast(),
            &raw mut len,
        )
    })?;
    Ok(group)
}

/// Sets an option whose value is a classic BPF program.
fn set_program(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` is a `sock_fprog`, and what it points to is readable for its length; the kernel copies it and writes nothing.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
}

/// The program that chooses among the sockets of a group.
pub(crate) fn set_fanout_program(fd: impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    set_program(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, program)
}

/// The program that says which frames a socket takes.
pub(crate) fn attach_filter(fd: impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    set_program(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// Has a socket take all frames again.
pub(crate) fn detach_filter(fd: impl AsFd) -> io::Result<()> {
    let none = 0i32;
    // SAFETY: `none` is readable for the size given; the option ignores it.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const none).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
}

/// Frames received, and dropped for want of room, since the last call.
pub(crate) fn packet_statistics(fd: impl AsFd) -> io::Result<libc::tpacket_stats> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: `stats` is writable for `len` bytes.
    check(unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    })?;
    Ok(stats)
}

/// Binds a packet socket to one interface and one ethertype.
pub(crate) fn bind_packet(fd: impl AsFd, index: i32, ethertype: u16) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`: it has integers only.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    // SAFETY: `address` is a `sockaddr_ll` and the length is its size.
    check(unsafe {
        libc::bind(
            fd.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })
}
