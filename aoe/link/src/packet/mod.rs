//! An Ethernet interface of this machine, through a packet socket with a receive ring.

mod backlog;
mod ring;
mod share;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kagero_aoe::link::Link;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::{Counters, ETHERNET_HEADER, Error, Interface, ServerLink, Tail, sys};
use backlog::Backlog;
use ring::{ReceiveRing, Received};

/// The ethertype of ATA over Ethernet.
const AOE: u16 = 0x88A2;

/// The largest MTU that is made use of. Slots always hold as much: the interface's MTU may be raised while we run.
const JUMBO: usize = 9_000;

/// The longest frame that a slot holds.
const LONGEST: usize = ETHERNET_HEADER + JUMBO;

/// How much a packet link may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Slots of the receive ring. A server needs one for each frame that all its clients may have outstanding.
    pub receive_slots: usize,
    /// Transmit buffers.
    pub transmit_slots: usize,
    /// Frames for other stations are taken as well, and the interface is asked to let them through: for one that plays many
    /// stations.
    pub promiscuous: bool,
}

impl Default for Options {
    /// 1,024 and 128: about 10 MB with jumbo frames; not promiscuous.
    fn default() -> Self {
        Options { receive_slots: 1_024, transmit_slots: 128, promiscuous: false }
    }
}

/// AoE frames to and from one Ethernet interface.
///
/// The interface may go down and come up again: frames sent meanwhile are lost, and then it goes on. Frames of a VLAN are passed over, and
/// so are frames for another station, seen on an interface that somebody made promiscuous, unless [`Options::promiscuous`] asks for them.
#[derive(Debug)]
pub struct PacketLink {
    // The ring is unmapped before its socket closes.
    ring: ReceiveRing,
    socket: OwnedFd,
    interface: Interface,
    backlog: Backlog,
    promiscuous: bool,
    held: bool,
    /// A frame has come since the ring was last found empty.
    busy: bool,
    counters: Counters,
}

impl PacketLink {
    /// Opens the interface `name`, which must be up.
    ///
    /// # Errors
    /// No such interface, interface down, an MTU below [`LEAST_MTU`](crate::interface::LEAST_MTU), no permission; each in one line that
    /// says what to do.
    pub fn open(name: &str, options: Options) -> Result<Self, Error> {
        Self::open_one(Interface::ready(name)?, options, false)
    }

    /// Opens the interface `name` for `members` threads, one at least: each gets a link of its own, and every station's frames always come to the
    /// same one of them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_shared(name: &str, options: Options, members: usize) -> Result<Vec<Self>, Error> {
        let first = Self::open(name, options)?;
        let mut links = vec![first];
        for _ in 1..members {
            links.push(Self::open_one(Interface::ready(name)?, options, true)?);
        }
        if let [first, rest @ ..] = &links[..]
            && !rest.is_empty()
        {
            let rest: Vec<_> = rest.iter().map(|link| &link.socket).collect();
            share::share_among(&first.socket, &rest).map_err(|source| Error::Kernel {
                name: name.into(),
                doing: "share its frames among threads",
                source,
            })?;
        }
        Ok(links)
    }

    fn open_one(interface: Interface, options: Options, deaf: bool) -> Result<Self, Error> {
        let name = interface.name.as_str();
        let kernel = |doing| move |source: io::Error| Error::Kernel { name: name.into(), doing, source };
        // Protocol 0: nothing is received before the ring stands and the socket is bound.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None).map_err(|e| match e {
                rustix::io::Errno::PERM | rustix::io::Errno::ACCESS => {
                    Error::Permission { name: name.into(), capability: "CAP_NET_RAW" }
                }
                other => kernel("open a packet socket")(other.into()),
            })?;
        // Our own frames come back otherwise. Kernels before 4.20 don't know the option; `receive` then drops them by kind.
        let _ = sys::set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1i32);
        let ring = ReceiveRing::new(&socket, options.receive_slots, LONGEST)
            .map_err(kernel("make a receive ring"))?;
        // Room for all transmit buffers and the kernel's overhead. The first needs CAP_NET_ADMIN, the second is capped by
        // net.core.wmem_max; both only matter for bursts.
        let room = options.transmit_slots * 2 * LONGEST;
        if sockopt::set_socket_send_buffer_size_force(&socket, room).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, room);
        }
        if deaf {
            share::deafen(&socket).map_err(kernel("close it for now"))?;
        }
        sys::bind_packet(&socket, interface.index, AOE).map_err(kernel("bind to it"))?;
        if options.promiscuous {
            sys::join_promiscuous(&socket, interface.index).map_err(kernel("make it promiscuous"))?;
        }
        let backlog = Backlog::new(options.transmit_slots.max(1), LONGEST);
        let promiscuous = options.promiscuous;
        let counters = Counters::default();
        Ok(PacketLink { ring, socket, interface, backlog, promiscuous, held: false, busy: false, counters })
    }

    /// The interface as it was when the link was opened.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Frames moved and lost so far.
    pub fn counters(&mut self) -> Counters {
        if let Ok(stats) = sys::packet_statistics(&self.socket) {
            self.counters.overrun += u64::from(stats.tp_drops);
        }
        self.counters
    }

    /// Takes the socket's error, which keeps it ready until it was told, as when the interface goes down.
    fn take_error(&mut self) {
        if let Ok(Err(error)) = sockopt::socket_error(&self.socket) {
            tracing::info!(interface = self.interface.name, %error, "link");
            if let Ok(mtu) = self.interface.mtu_now(&self.socket) {
                self.interface.mtu = mtu;
            }
        }
    }

    fn send(&mut self) {
        let progress = self.backlog.send(&self.socket);
        self.counters.sent += progress.sent;
        self.counters.unsent += progress.refused;
    }
}

/// Whether a frame from the ring is one for us, and whole.
fn is_ours(received: &Received<'_>, promiscuous: bool) -> bool {
    let kind = match received.kind {
        libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST => true,
        libc::PACKET_OTHERHOST => promiscuous,
        // Our own, on kernels that return them.
        _ => false,
    };
    // VLAN 0 is a priority tag without a VLAN (802.1Q 9.6).
    let untagged = received.vlan.is_none_or(|vlan| vlan == 0);
    kind && untagged && received.frame.len() == received.wire_len
}

impl Link for PacketLink {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let mut take = Some(take);
        // Bounded by the ring, which others fill: foreign frames must not hold us here.
        let promiscuous = self.promiscuous;
        for _ in 0..64 {
            let taken = self.ring.receive(|received| {
                let take = is_ours(&received, promiscuous).then(|| take.take()).flatten();
                take.map(|take| take(received.frame)).is_some()
            });
            match taken {
                Some(true) => {
                    self.counters.received += 1;
                    self.busy = true;
                    return true;
                }
                Some(false) => self.counters.ignored += 1,
                None => break,
            }
        }
        // Ready without a frame: there may be an error to tell. Asked only then, since it costs a system call.
        if !std::mem::take(&mut self.busy) {
            self.take_error();
        }
        false
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.transmit_with(|out| Some((fill(out)?, None)))
    }

    fn hold(&mut self) {
        self.held = true;
    }

    fn flush(&mut self) -> bool {
        self.held = false;
        self.send();
        self.backlog.is_empty()
    }

    fn mtu(&self) -> usize {
        self.interface.mtu.min(JUMBO)
    }

    fn mac(&self) -> [u8; 6] {
        self.interface.mac
    }
}

impl ServerLink for PacketLink {
    fn has_frame(&self) -> Option<bool> {
        Some(self.ring.has_frame())
    }

    fn takes_pages(&self) -> bool {
        true
    }

    fn transmit_with(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<(usize, Option<Tail>)>) -> bool {
        if self.backlog.is_full() {
            self.send();
            if self.backlog.is_full() {
                return false;
            }
        }
        let filled = self.backlog.push(fill).is_some();
        if !self.held {
            self.send();
        }
        filled
    }
}

impl AsFd for PacketLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
