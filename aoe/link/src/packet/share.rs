//! Several sockets that share the frames of one interface: each station's frames always come to the same one.

use std::io;
use std::os::fd::OwnedFd;

use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_K, BPF_LD, BPF_MUL, BPF_RET, BPF_RSH, BPF_W};

use crate::sys;

/// Where a frame begins, seen from a filter, which is otherwise given what comes after the Ethernet header.
const LINK_LAYER: u32 = libc::SKF_LL_OFF as u32;

/// Knuth's multiplier (The Art of Computer Programming 6.4), so that neighbouring addresses are spread.
const SPREAD: u32 = 0x9E37_79B1;

/// From the last four bytes of the sender's address, a number; the kernel takes it modulo the number of sockets.
const BY_SENDER: [libc::sock_filter; 4] = [
    instruction(BPF_LD | BPF_W | BPF_ABS, LINK_LAYER + 8),
    instruction(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
    instruction(BPF_ALU | BPF_RSH | BPF_K, 16),
    instruction(BPF_RET | BPF_A, 0),
];

/// Takes no frame.
const NOTHING: [libc::sock_filter; 1] = [instruction(BPF_RET | BPF_K, 0)];

const fn instruction(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Makes a socket deaf, until it is given its [share](share_among).
pub(super) fn deafen(socket: &OwnedFd) -> io::Result<()> {
    sys::attach_filter(socket, &NOTHING)
}

/// Shares the frames among bound sockets, of which all but the first are [deaf](deafen). No frame is lost to them, or comes to two.
pub(super) fn share_among(first: &OwnedFd, rest: &[&OwnedFd]) -> io::Result<()> {
    // Without a program yet, all frames go to the first member.
    let group = u32::from(libc::PACKET_FANOUT_CBPF as u16 | libc::PACKET_FANOUT_FLAG_UNIQUEID as u16) << 16;
    sys::set_packet_option(first, libc::PACKET_FANOUT, &group)?;
    let group = sys::fanout_group(first)?;
    for socket in rest {
        sys::set_packet_option(socket, libc::PACKET_FANOUT, &group)?;
        sys::detach_filter(socket)?;
    }
    sys::set_fanout_program(first, &BY_SENDER)
}
