//! Packet sockets with everything the kernel offers for them, and memory that it writes to: kept apart because it needs `unsafe`.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use io_uring::{IoUring, squeue};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use super::frames::BATCH;

/// A slot of any buffer here: one jumbo frame.
const SLOT: usize = 16 << 10;
const SLOTS: usize = 256;
const BLOCK: usize = 256 << 10;

/// Buffers aligned to pages, as O_DIRECT wants them.
pub(super) struct PageBuffers {
    base: *mut u8,
    layout: Layout,
    size: usize,
}

impl PageBuffers {
    pub(super) fn new(count: usize, size: usize) -> Self {
        let layout = Layout::from_size_align(count * size, 4096).expect("a size that fits");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        PageBuffers { base, layout, size }
    }

    /// Where one buffer is.
    pub(super) fn pointer(&mut self, index: usize) -> *mut u8 {
        assert!((index + 1) * self.size <= self.layout.size());
        self.base.wrapping_add(index * self.size)
    }
}

impl Drop for PageBuffers {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}

/// Queues a read. Its buffer must live until it is done: the callers here wait for all, and keep file and buffers longer than the ring.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) -> Result<()> {
    // SAFETY: see above; an error on the way ends the measurement, and the ring, dropped first, cancels what is left.
    unsafe { ring.submission().push(entry) }.context("the submission queue is full")
}

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(super) fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: `value` is readable for `length` bytes.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) }).map(drop)
}

/// Shared memory of a socket; lives until the process ends its measurement.
pub(super) struct Mapping {
    pub(super) base: *mut u8,
    length: usize,
}

impl Mapping {
    pub(super) fn new(socket: &OwnedFd, length: usize, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(null_mut(), length, protection, flags, socket.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: base.cast(), length })
    }

    /// A 32-bit word that the kernel changes too.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.length && offset.is_multiple_of(4));
        // SAFETY: inside the mapping and aligned.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// Writes a value where the kernel doesn't look at the moment.
    pub(super) fn put<T: Copy>(&self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= self.length);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(offset).cast::<T>().write_unaligned(value) };
    }

    /// Reads a value that the kernel has handed over.
    pub(super) fn get<T: Copy>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= self.length);
        // SAFETY: inside the mapping; `T` is one of the kernel's plain structures.
        unsafe { self.base.add(offset).cast::<T>().read_unaligned() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// The kernel's number of an interface.
pub(super) fn interface_index(name: &str) -> Result<u32> {
    Ok(kagero_link::Interface::find(name)?.index as u32)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Single,
    Batch,
    Ring,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    Single,
    Batch,
    RingV2,
    /// Looks again and again, and never sleeps.
    BusyRingV2,
    RingV3,
}

enum Way {
    Send(Sender),
    Receive(Receiver),
}

/// A packet socket, bound to one interface and AoE's ethertype.
pub(super) struct PacketSocket {
    ring: Option<Mapping>,
    socket: OwnedFd,
    way: Way,
    length: usize,
    next: usize,
    buffers: Vec<u8>,
}

impl PacketSocket {
    pub(super) fn sender(interface: &str, kind: Sender, length: usize) -> Result<Self> {
        let socket = open()?;
        let mut ring = None;
        if kind == Sender::Ring {
            set_option(
                &socket,
                libc::SOL_PACKET,
                libc::PACKET_VERSION,
                &(libc::tpacket_versions::TPACKET_V2 as i32),
            )?;
            ring = Some(make_ring(&socket, libc::PACKET_TX_RING)?);
        }
        set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(8i32 << 20))?;
        bind(&socket, interface)?;
        let mut frame = vec![0; SLOT];
        frame[..14].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 1, 0x88, 0xA2]);
        Ok(PacketSocket { ring, socket, way: Way::Send(kind), length, next: 0, buffers: frame })
    }

    pub(super) fn receiver(interface: &str, kind: Receiver) -> Result<Self> {
        let socket = open()?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(8i32 << 20))?;
        let patience = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
        let version = match kind {
            Receiver::RingV2 | Receiver::BusyRingV2 => Some(libc::tpacket_versions::TPACKET_V2),
            Receiver::RingV3 => Some(libc::tpacket_versions::TPACKET_V3),
            _ => None,
        };
        let mut ring = None;
        if let Some(version) = version {
            set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(version as i32))?;
            ring = Some(make_ring(&socket, libc::PACKET_RX_RING)?);
        }
        bind(&socket, interface)?;
        let buffers = vec![0; SLOT * BATCH];
        Ok(PacketSocket { ring, socket, way: Way::Receive(kind), length: SLOT, next: 0, buffers })
    }

    /// Sends one frame or a batch; how many.
    pub(super) fn send(&mut self) -> Result<usize> {
        let fd = self.socket.as_raw_fd();
        match (&self.way, &self.ring) {
            (Way::Send(Sender::Single), _) => {
                // SAFETY: the buffer has more than `length` bytes.
                ensure_done(unsafe { libc::send(fd, self.buffers.as_ptr().cast(), self.length, 0) })?;
                Ok(1)
            }
            (Way::Send(Sender::Batch), _) => {
                let mut parts =
                    [libc::iovec { iov_base: self.buffers.as_mut_ptr().cast(), iov_len: self.length }; BATCH];
                let mut messages = messages(&mut parts);
                // SAFETY: every message points to a part, every part to the frame; all live until the call returns.
                let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), BATCH as u32, 0) };
                Ok(check(sent)? as usize)
            }
            (Way::Send(Sender::Ring), Some(ring)) => {
                let mut count = 0;
                while count < BATCH {
                    let slot = self.next * SLOT;
                    if ring.word(slot).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
                        break;
                    }
                    // The second word is the length; data follows the header, since no other offset was asked for.
                    ring.word(slot + 4).store(self.length as u32, Ordering::Relaxed);
                    let frame = &self.buffers[..self.length];
                    // SAFETY: `length` is less than a slot, and the slot is ours while it is available.
                    unsafe {
                        ring.base
                            .add(slot + size_of::<libc::tpacket2_hdr>())
                            .copy_from(frame.as_ptr(), frame.len())
                    };
                    ring.word(slot).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
                    self.next = (self.next + 1) % SLOTS;
                    count += 1;
                }
                // SAFETY: without a buffer, the call sends what is in the ring.
                ensure_done(unsafe { libc::send(fd, std::ptr::null(), 0, 0) })?;
                Ok(count)
            }
            _ => bail!("not a sender"),
        }
    }

    /// Receives what there is, waiting a moment when there is nothing; how many.
    pub(super) fn receive(&mut self) -> Result<usize> {
        let fd = self.socket.as_raw_fd();
        let taken = match (&self.way, &self.ring) {
            (Way::Receive(Receiver::Single), _) => {
                // SAFETY: the buffer has as many bytes.
                let received = unsafe { libc::recv(fd, self.buffers.as_mut_ptr().cast(), SLOT, 0) };
                return Ok(usize::from(received > 0));
            }
            (Way::Receive(Receiver::Batch), _) => {
                let base = self.buffers.as_mut_ptr();
                let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
                    iov_base: base.wrapping_add(index * SLOT).cast(),
                    iov_len: SLOT,
                });
                let mut messages = messages(&mut parts);
                let flags = libc::MSG_WAITFORONE;
                // SAFETY: every message points to a part, every part to a slot of the buffers; all live until the call returns.
                let count =
                    unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), BATCH as u32, flags, null_mut()) };
                return Ok(count.max(0) as usize);
            }
            (Way::Receive(Receiver::RingV2 | Receiver::BusyRingV2), Some(ring)) => {
                let mut count = 0;
                while count < SLOTS {
                    let status = ring.word(self.next * SLOT);
                    if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                        break;
                    }
                    let header: libc::tpacket2_hdr = ring.get(self.next * SLOT);
                    std::hint::black_box(ring.get::<[u8; 36]>(self.next * SLOT + usize::from(header.tp_mac)));
                    status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
                    self.next = (self.next + 1) % SLOTS;
                    count += 1;
                }
                count
            }
            (Way::Receive(Receiver::RingV3), Some(ring)) => {
                // A block: version, offset of the private part, then status, number of frames, offset of the first.
                let block = self.next * BLOCK;
                if ring.word(block + 8).load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                    0
                } else {
                    let (count, mut at): (u32, u32) = (ring.get(block + 12), ring.get(block + 16));
                    for _ in 0..count {
                        let header: libc::tpacket3_hdr = ring.get(block + at as usize);
                        let mac = at as usize + usize::from(header.tp_mac);
                        std::hint::black_box(ring.get::<[u8; 36]>(block + mac));
                        at += header.tp_next_offset;
                    }
                    ring.word(block + 8).store(libc::TP_STATUS_KERNEL, Ordering::Release);
                    self.next = (self.next + 1) % (SLOTS * SLOT / BLOCK);
                    count as usize
                }
            }
            _ => bail!("not a receiver"),
        };
        if taken == 0 && !matches!(self.way, Way::Receive(Receiver::BusyRingV2)) {
            wait(&self.socket)?;
        }
        Ok(taken)
    }
}

/// Waits a moment for frames.
pub(super) fn wait(socket: &OwnedFd) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
    Ok(())
}

fn ensure_done(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn messages(parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: all-zero bytes are a valid `mmsghdr`: integers and null pointers.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    for (message, part) in messages.iter_mut().zip(parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages
}

fn open() -> Result<OwnedFd> {
    // SAFETY: no pointers. Protocol 0: nothing arrives before the socket is bound.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn make_ring(socket: &OwnedFd, option: i32) -> Result<Mapping> {
    // The structure of version 3, whose beginning is that of version 2; the time-out is of version 3.
    let request = libc::tpacket_req3 {
        tp_block_size: BLOCK as u32,
        tp_block_nr: (SLOTS * SLOT / BLOCK) as u32,
        tp_frame_size: SLOT as u32,
        tp_frame_nr: SLOTS as u32,
        tp_retire_blk_tov: 1,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    set_option(socket, libc::SOL_PACKET, option, &request)?;
    Ok(Mapping::new(socket, SLOTS * SLOT, 0)?)
}

fn bind(socket: &OwnedFd, interface: &str) -> Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`: it has integers only.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = 0x88A2u16.to_be();
    address.sll_ifindex = interface_index(interface)? as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is readable for `length` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    ensure!(address.sll_ifindex > 0, "{interface}: no number");
    Ok(())
}
