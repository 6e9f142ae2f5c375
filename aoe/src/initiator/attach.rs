//! Finding the target, learning its disk, and finding it again.

use super::flight::Work;
use super::window::Window;
use super::{Event, Initiator};
use crate::Instant;
use crate::wire::{self, Command, Config, Header, MacAddress};
use core::time::Duration;
use kagero_devices::ata::identify::{self, Identity};
use kagero_devices::storage::Disk;

/// The first pause between config queries, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between config queries.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Sectors in the longest frame that every Ethernet carries.
const SMALL: u8 = wire::sectors_for_mtu(1500) as u8;

/// How often a long frame is tried before a shorter one is.
pub(super) const PROBES: u32 = 4;

/// Where it stands with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Looking for it.
    Discovering {
        /// Config queries sent.
        queries: u32,
        /// When to send the next.
        next: Instant,
    },
    /// It has answered, and its disk is asked for.
    Attaching,
    /// Commands are sent.
    Attached,
}

impl State {
    pub(super) const START: State = State::Discovering { queries: 0, next: Instant::ZERO };
}

/// What is known of the target.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) mac: MacAddress,
    /// The most sectors in one frame.
    pub(super) sectors: u8,
    /// The READ and WRITE EXT commands, with addresses of 48 bits.
    pub(super) extended: bool,
    /// FLUSH CACHE EXT rather than FLUSH CACHE. They do the same; vblade aborts the first, so the second is tried first.
    pub(super) flush_extended: bool,
    /// The most blocks of range entries in one DATA SET MANAGEMENT command; 0 for not told.
    pub(super) trim_blocks: u16,
    /// What it says of its disk.
    pub(super) disk: Option<Disk>,
}

impl Default for Target {
    fn default() -> Self {
        Target {
            mac: MacAddress::BROADCAST,
            sectors: 1,
            extended: false,
            flush_extended: false,
            trim_blocks: 0,
            disk: None,
        }
    }
}

impl Initiator {
    /// The next config query, if it is due.
    pub(super) fn query(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        let State::Discovering { queries, next } = self.state else { return None };
        if now < next {
            return None;
        }
        let tag = self.flight.fresh_tag();
        let header =
            Header::request(self.config.mac, MacAddress::BROADCAST, self.config.target, Command::Config, tag);
        let length = wire::encode(frame, &header, |out| Config::query().encode(out))?;
        let pause = FIRST_PAUSE.saturating_mul(1 << queries.min(10)).min(LAST_PAUSE);
        self.state = State::Discovering { queries: queries.saturating_add(1), next: now + pause };
        Some(length)
    }

    /// The target was found.
    pub(super) fn found(&mut self, now: Instant, mac: MacAddress, config: &Config<'_>) {
        let fit = u8::try_from(wire::sectors_for_mtu(self.config.mtu)).unwrap_or(u8::MAX);
        let sectors = config.sectors_per_frame().min(fit);
        if sectors == 0 {
            return;
        }
        self.target = Target { mac, sectors, ..Target::default() };
        self.window = Window::new(config.buffer_count);
        self.state = State::Attaching;
        self.heard = now;
        self.flight.add(Work::Identify, None);
    }

    /// The target has sent its IDENTIFY DEVICE data.
    pub(super) fn identified(&mut self, now: Instant, data: &[u8]) {
        let Some(data) = data.first_chunk() else { return };
        let Identity { disk, ext, trim_blocks, .. } = match identify::parse(data) {
            Ok(identity) => identity,
            Err(error) => {
                self.tell(Event::Unusable(error));
                return self.look_again(now);
            }
        };
        self.target.extended = ext;
        self.target.trim_blocks = trim_blocks;
        let largest = u8::try_from(disk.sectors).unwrap_or(u8::MAX).max(1);
        self.target.disk = Some(disk);
        if self.target.sectors > SMALL && largest > SMALL {
            self.flight.add(Work::Probe { sectors: self.target.sectors.min(largest) }, None);
        } else {
            self.attached(now);
        }
    }

    /// The target can't say what its disk is: start over in a while.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.state = State::Discovering { queries: 0, next: now + LAST_PAUSE };
    }

    /// Frames with so many sectors reach the target, and its answers us; or, as `None`, they don't.
    pub(super) fn probed(&mut self, now: Instant, sectors: u8, carried: bool) {
        if carried {
            // A disk smaller than a frame doesn't make frames shorter: a full one would not be sent anyway.
            self.target.sectors = sectors;
        } else {
            self.target.sectors = (sectors / 2).max(SMALL);
            if self.target.sectors > SMALL {
                self.flight.add(Work::Probe { sectors: self.target.sectors }, None);
                return;
            }
        }
        self.attached(now);
    }

    fn attached(&mut self, now: Instant) {
        self.state = State::Attached;
        self.recheck = true;
        if let Some(since) = self.lost.take() {
            self.tell(Event::TargetBack { mac: self.target.mac, silent: now - since });
        }
        let Some(disk) = self.target.disk.clone() else { return };
        match self.disk.replace(disk.clone()) {
            None => self.tell(Event::Ready(disk)),
            Some(earlier) if earlier != disk => self.tell(Event::Changed(disk)),
            Some(_) => {}
        }
    }

    /// The target doesn't answer any more: all packets are taken back, to be made anew when it is found again.
    pub(super) fn lose_target(&mut self, now: Instant) {
        for index in self.flight.indexes() {
            let Some(packet) = self.flight.remove(index) else { continue };
            if let Work::Piece(piece) = packet.work {
                self.commands.again(piece);
            }
            self.bury(&packet, None, false, None);
        }
        self.flight.settle();
        self.asking = false;
        // What lies unread in the target's queues may be carried out when it goes on.
        self.ghosts.silence();
        if self.state == State::Attached {
            let since = self.heard;
            self.lost = Some(since);
            self.statistics.losses += 1;
            self.tell(Event::TargetLost { silent: now - since });
        }
        self.state = State::Discovering { queries: 0, next: now };
    }

    /// Whether a frame with this header comes from our target, or could.
    pub(super) fn is_ours(&self, header: &Header) -> bool {
        let meant = header.destination == self.config.mac
            || header.command == Command::Config && header.destination == MacAddress::BROADCAST;
        let from = match self.state {
            State::Discovering { .. } => header.command == Command::Config && !header.source.is_multicast(),
            State::Attaching | State::Attached => header.source == self.target.mac,
        };
        header.response
            && header.version == wire::VERSION
            && header.address == self.config.target
            && meant
            && from
    }
}
