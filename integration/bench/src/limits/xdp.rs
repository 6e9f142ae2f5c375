//! AF_XDP in copy mode, which every driver has; with the smallest XDP program there is, written out as instructions.
#![allow(unsafe_code)]

use anyhow::{Context, Result, ensure};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::frames::BATCH;
use super::sys::{Mapping, PageBuffers, check, interface_index, set_option, wait};

/// A buffer of the shared memory. Copy mode takes buffers of at most a page, so a jumbo frame goes through several.
const CHUNK: usize = 4096;
const CHUNKS: usize = 512;
/// Entries of each ring: one half of the buffers is for receiving, the other for sending.
const ENTRIES: u32 = 256;
/// `XDP_USE_SG`: frames may take several buffers.
const USE_SG: u16 = 1 << 4;
/// `XDP_PKT_CONTD`: the frame goes on in the next descriptor.
const CONTINUED: u32 = 1;
/// Bytes in front of a received frame that the kernel keeps (`XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;

/// One of the four rings.
struct Ring {
    memory: Mapping,
    offsets: libc::xdp_ring_offset,
}

impl Ring {
    fn open(
        socket: &OwnedFd,
        option: i32,
        entry: usize,
        at: i64,
        offsets: libc::xdp_ring_offset,
    ) -> Result<Ring> {
        set_option(socket, libc::SOL_XDP, option, &ENTRIES)?;
        let memory = Mapping::new(socket, offsets.desc as usize + ENTRIES as usize * entry, at)?;
        Ok(Ring { memory, offsets })
    }

    fn produced(&self) -> u32 {
        self.memory.word(self.offsets.producer as usize).load(Ordering::Acquire)
    }

    fn produce(&self, to: u32) {
        self.memory.word(self.offsets.producer as usize).store(to, Ordering::Release);
    }

    fn consumed(&self) -> u32 {
        self.memory.word(self.offsets.consumer as usize).load(Ordering::Acquire)
    }

    fn consume(&self, to: u32) {
        self.memory.word(self.offsets.consumer as usize).store(to, Ordering::Release);
    }

    /// Where an entry of so many bytes is.
    fn entry(&self, number: u32, size: usize) -> usize {
        self.offsets.desc as usize + (number % ENTRIES) as usize * size
    }
}

pub(super) struct Xdp {
    link: Option<OwnedFd>,
    fill: Ring,
    completion: Ring,
    receive: Ring,
    transmit: Ring,
    socket: OwnedFd,
    // Freed last: the kernel uses it as long as the socket is open.
    buffers: PageBuffers,
    index: u32,
}

impl Xdp {
    pub(super) fn open(interface: &str) -> Result<Xdp> {
        let index = interface_index(interface)?;
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })
            .context("an AF_XDP socket")?;
        // SAFETY: a new descriptor, ours alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut buffers = PageBuffers::new(CHUNKS, CHUNK);
        let area = libc::xdp_umem_reg {
            addr: buffers.pointer(0) as u64,
            len: (CHUNKS * CHUNK) as u64,
            chunk_size: CHUNK as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set_option(&socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &area).context("shared memory for AF_XDP")?;
        // The ring sizes come before the offsets are asked for; their places don't depend on them.
        let offsets = offsets(&socket)?;
        let open = |option, entry, at: u64, offsets| Ring::open(&socket, option, entry, at as i64, offsets);
        let (address, descriptor) = (size_of::<u64>(), size_of::<libc::xdp_desc>());
        let fill = open(libc::XDP_UMEM_FILL_RING, address, libc::XDP_UMEM_PGOFF_FILL_RING, offsets.fr)?;
        let completion =
            open(libc::XDP_UMEM_COMPLETION_RING, address, libc::XDP_UMEM_PGOFF_COMPLETION_RING, offsets.cr)?;
        let receive = open(libc::XDP_RX_RING, descriptor, libc::XDP_PGOFF_RX_RING as u64, offsets.rx)?;
        let transmit = open(libc::XDP_TX_RING, descriptor, libc::XDP_PGOFF_TX_RING as u64, offsets.tx)?;
        let to = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY | USE_SG,
            sxdp_ifindex: index,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        // The kernel lets go of an earlier socket a moment after it is closed.
        for attempts_left in (0..50).rev() {
            // SAFETY: `to` is readable for the length given.
            let bound =
                check(unsafe { libc::bind(fd, (&raw const to).cast(), size_of_val(&to) as libc::socklen_t) });
            match bound {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts_left > 0 => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                other => {
                    other.context("binding an AF_XDP socket")?;
                    break;
                }
            }
        }
        // All receive buffers are the kernel's at first.
        for number in 0..ENTRIES {
            fill.memory.put(fill.entry(number, address), u64::from(number) * CHUNK as u64);
        }
        fill.produce(ENTRIES);
        for number in ENTRIES as usize..CHUNKS {
            let header = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 1, 0x88, 0xA2];
            // SAFETY: inside the buffers, which nothing else uses yet.
            unsafe { buffers.pointer(number).copy_from(header.as_ptr(), header.len()) };
        }
        Ok(Xdp { link: None, fill, completion, receive, transmit, socket, buffers, index })
    }

    /// Sends a batch of frames as there is room; how many.
    pub(super) fn send(&mut self, length: usize) -> Result<usize> {
        let parts = length.div_ceil(CHUNK) as u32;
        let done = self.completion.produced();
        self.completion.consume(done);
        // A buffer is free when the kernel has handed it back, which it does in order.
        let start = self.transmit.produced();
        let room = ENTRIES - start.wrapping_sub(done);
        let count = (room / parts).min(BATCH as u32);
        let mut next = start;
        for _ in 0..count {
            for part in 0..parts {
                let last = part + 1 == parts;
                let descriptor = libc::xdp_desc {
                    addr: u64::from(ENTRIES + next % ENTRIES) * CHUNK as u64,
                    len: if last { length - part as usize * CHUNK } else { CHUNK } as u32,
                    options: if last { 0 } else { CONTINUED },
                };
                self.transmit.memory.put(self.transmit.entry(next, size_of_val(&descriptor)), descriptor);
                next = next.wrapping_add(1);
            }
        }
        self.transmit.produce(next);
        // SAFETY: without a buffer, the call sends what is in the ring.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        let error = io::Error::last_os_error();
        let busy = [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS];
        if sent < 0 && !error.raw_os_error().is_some_and(|code| busy.contains(&code)) {
            return Err(error).context("sending through AF_XDP");
        }
        Ok(count as usize)
    }

    /// Lets the interface hand its frames to this socket.
    pub(super) fn redirect(&mut self) -> Result<()> {
        self.link = Some(bpf::attach(self.socket.as_raw_fd(), self.index)?);
        Ok(())
    }

    /// Receives what there is, waiting a moment when there is nothing, unless `busy`; how many.
    pub(super) fn receive(&mut self, busy: bool) -> Result<usize> {
        ensure!(self.link.is_some(), "nothing is redirected here");
        let (start, end) = (self.receive.consumed(), self.receive.produced());
        let mut frames = 0;
        let mut filled = self.fill.produced();
        let mut number = start;
        while number != end {
            let entry = self.receive.entry(number, size_of::<libc::xdp_desc>());
            let descriptor: libc::xdp_desc = self.receive.memory.get(entry);
            let offset = descriptor.addr as usize;
            ensure!(offset + 36 <= CHUNKS * CHUNK, "a frame outside our memory");
            let data = self.buffers.pointer(0).wrapping_add(offset).cast::<[u8; 36]>();
            // SAFETY: inside the buffers, by the check; the buffer is ours until it goes back.
            std::hint::black_box(unsafe { data.read_unaligned() });
            frames += usize::from(descriptor.options & CONTINUED == 0);
            let place = self.fill.entry(filled, size_of::<u64>());
            self.fill
                .memory
                .put(place, descriptor.addr.saturating_sub(HEADROOM as u64) / CHUNK as u64 * CHUNK as u64);
            filled = filled.wrapping_add(1);
            number = number.wrapping_add(1);
        }
        self.receive.consume(end);
        self.fill.produce(filled);
        if frames == 0 && !busy {
            wait(&self.socket)?;
        }
        Ok(frames)
    }
}

fn offsets(socket: &OwnedFd) -> Result<libc::xdp_mmap_offsets> {
    // SAFETY: all-zero bytes are a valid structure of integers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&offsets) as libc::socklen_t;
    let (fd, level, option) = (socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS);
    // SAFETY: `offsets` is writable for `length` bytes.
    check(unsafe { libc::getsockopt(fd, level, option, (&raw mut offsets).cast(), &raw mut length) })?;
    Ok(offsets)
}

/// Loading and attaching the program (bpf(2)). The kernel reads structures of 64-bit and 32-bit words, here written as words.
mod bpf {
    use super::*;

    const MAP_CREATE: i64 = 0;
    const MAP_UPDATE: i64 = 2;
    const PROG_LOAD: i64 = 5;
    const LINK_CREATE: i64 = 28;
    const MAP_TYPE_XSKMAP: u32 = 17;
    const PROG_TYPE_XDP: u32 = 6;
    const ATTACH_XDP: u32 = 37;
    /// `BPF_F_XDP_HAS_FRAGS`: it may see frames in several pieces.
    const HAS_FRAGS: u32 = 1 << 5;

    fn call(command: i64, words: &[u32]) -> io::Result<OwnedFd> {
        let mut attributes = [0u64; 16];
        for (index, word) in words.iter().enumerate() {
            attributes[index / 2] |= u64::from(*word) << (index % 2 * 32);
        }
        // SAFETY: the attributes are readable for their size, and the pointers in them are to what the callers here keep alive.
        let fd =
            unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
        match check(fd as libc::c_int)? {
            // Only an update gives no descriptor.
            0 => Ok(std::fs::File::open("/dev/null")?.into()),
            // SAFETY: a new descriptor, ours alone.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }

    fn halves<T>(pointer: &T) -> [u32; 2] {
        let address = std::ptr::from_ref(pointer) as u64;
        [address as u32, (address >> 32) as u32]
    }

    /// Redirects every frame of the interface's first queue to the socket, as long as what is returned is open.
    pub(super) fn attach(socket: i32, interface: u32) -> Result<OwnedFd> {
        let map = call(MAP_CREATE, &[MAP_TYPE_XSKMAP, 4, 4, 1]).context("BPF_MAP_CREATE")?;
        let (key, value) = (0u32, socket as u32);
        let ([k0, k1], [v0, v1]) = (halves(&key), halves(&value));
        call(MAP_UPDATE, &[map.as_raw_fd() as u32, 0, k0, k1, v0, v1]).context("BPF_MAP_UPDATE_ELEM")?;
        let fd = (map.as_raw_fd() as u64) << 32;
        let program: [u64; 6] = [
            // r2 = ctx->rx_queue_index
            0x0000_0000_0010_1261,
            // r1 = the map, in two halves
            0x0000_1118 | fd,
            0,
            // r3 = XDP_PASS, for queues without a socket
            0x0000_0002_0000_03B7,
            // r0 = bpf_redirect_map(r1, r2, r3)
            0x0000_0033_0000_0085,
            // exit
            0x95,
        ];
        let license = *b"BSD\0";
        let ([p0, p1], [l0, l1]) = (halves(&program), halves(&license));
        let mut load = [0; 20];
        load[..6].copy_from_slice(&[PROG_TYPE_XDP, 6, p0, p1, l0, l1]);
        // After the verifier's log (level, size, pointer) and the kernel's version: the flags.
        load[11] = HAS_FRAGS;
        let program = call(PROG_LOAD, &load).context("BPF_PROG_LOAD")?;
        call(LINK_CREATE, &[program.as_raw_fd() as u32, interface, ATTACH_XDP, 0]).context("BPF_LINK_CREATE")
    }
}
