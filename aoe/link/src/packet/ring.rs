//! The receive ring that a packet socket shares with the kernel (packet(7), TPACKET_V2).
//!
//! Version 2 rather than 3: version 3 hands over whole blocks after a time-out, which a single outstanding command would wait for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sys;

/// Blocks are of this size; the kernel takes a power of two of pages.
const BLOCK: usize = 64 << 10;

/// Bytes in a slot before the Ethernet header: `TPACKET2_HDRLEN` and the kernel's own rounding (`tpacket_rcv`).
const HEADROOM: usize = 96;

/// One received frame and what the kernel noted beside it.
pub(super) struct Received<'a> {
    /// The frame, from its destination address on.
    pub(super) frame: &'a [u8],
    /// Its length on the wire; more than was captured when the slot is too small.
    pub(super) wire_len: usize,
    /// `PACKET_HOST`, `PACKET_BROADCAST` and so on.
    pub(super) kind: u8,
    /// VLAN number when the frame had a tag.
    pub(super) vlan: Option<u16>,
}

/// The mapped ring and the place in it where the next frame will be.
#[derive(Debug)]
pub(super) struct ReceiveRing {
    base: NonNull<u8>,
    blocks: usize,
    slots_of_block: usize,
    slot_size: usize,
    next: Place,
}

/// A slot's place. Kept as it is, since to divide by these numbers, for every frame, takes longer than all else here.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    block: usize,
    slot: usize,
}

// SAFETY: the mapping belongs to this value alone and stays valid in whichever thread it is used; `next` needs `&mut self`.
unsafe impl Send for ReceiveRing {}

impl ReceiveRing {
    /// Makes a ring of at least `slots` slots for frames of up to `longest` bytes.
    pub(super) fn new(socket: impl AsFd, slots: usize, longest: usize) -> io::Result<Self> {
        let slot_size = (HEADROOM + longest).next_multiple_of(libc::TPACKET_ALIGNMENT);
        let slots_of_block = BLOCK / slot_size;
        if slots_of_block == 0 {
            return Err(io::Error::other("frames are too long for a packet ring"));
        }
        let blocks = slots.div_ceil(slots_of_block).max(1);
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        sys::set_packet_option(&socket, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: slot_size as u32,
            tp_frame_nr: (blocks * slots_of_block) as u32,
        };
        sys::set_packet_option(&socket, libc::PACKET_RX_RING, &request)?;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = unsafe {
            mmap(std::ptr::null_mut(), blocks * BLOCK, ProtFlags::READ | ProtFlags::WRITE, flags, &socket, 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(ReceiveRing { base, blocks, slots_of_block, slot_size, next: Place::default() })
    }

    /// Whether a frame is waiting.
    pub(super) fn has_frame(&self) -> bool {
        // SAFETY: as in `receive`.
        let status = unsafe { AtomicU32::from_ptr(self.slot().cast().as_ptr()) };
        status.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Hands the oldest frame to `take` and gives its slot back to the kernel; `None` when none is waiting.
    pub(super) fn receive<T>(&mut self, take: impl FnOnce(Received<'_>) -> T) -> Option<T> {
        let slot = self.slot();
        // SAFETY: `slot` points at a slot's header inside the mapping, 16-byte aligned, and `tp_status` is its first field; the
        // kernel accesses it at any time, so we do so atomically only.
        let status = unsafe { AtomicU32::from_ptr(slot.cast().as_ptr()) };
        let flags = status.load(Ordering::Acquire);
        if flags & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // Gives the slot back even if `take` panics: a slot kept would stop the ring for good.
        let _release = Release { status };
        self.advance();
        // SAFETY: with TP_STATUS_USER set the slot is ours: the kernel wrote its header and leaves it alone until the status is
        // cleared. `sockaddr_ll` follows the header at the next multiple of 16 (packet(7)).
        let (header, address) = unsafe {
            let header = slot.cast::<libc::tpacket2_hdr>();
            let after = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
            (header.read(), slot.add(after).cast::<libc::sockaddr_ll>().read())
        };
        let start = usize::from(header.tp_mac).min(self.slot_size);
        let len = (header.tp_snaplen as usize).min(self.slot_size - start);
        // SAFETY: `start + len <= slot_size`, so the bytes lie in this slot, which is ours until `_release` is dropped; the
        // reference can't outlive `take`.
        let frame = unsafe { std::slice::from_raw_parts(slot.add(start).as_ptr(), len) };
        let tagged = flags & libc::TP_STATUS_VLAN_VALID != 0;
        Some(take(Received {
            frame,
            wire_len: header.tp_len as usize,
            kind: address.sll_pkttype,
            vlan: tagged.then_some(header.tp_vlan_tci & 0xFFF),
        }))
    }

    /// Where the next frame will be.
    fn slot(&self) -> NonNull<u8> {
        let offset = self.next.block * BLOCK + self.next.slot * self.slot_size;
        debug_assert!(offset + self.slot_size <= self.blocks * BLOCK);
        // SAFETY: `advance` keeps the block below `blocks` and the slot below those that fit in a block, so the slot lies in the mapping of
        // `blocks * BLOCK` bytes.
        unsafe { self.base.add(offset) }
    }

    fn advance(&mut self) {
        self.next.slot += 1;
        if self.next.slot == self.slots_of_block {
            self.next = Place { block: self.next.block + 1, slot: 0 };
        }
        if self.next.block == self.blocks {
            self.next.block = 0;
        }
    }
}

/// Gives a slot back to the kernel.
struct Release<'a> {
    status: &'a AtomicU32,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference into it is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.blocks * BLOCK) };
    }
}
