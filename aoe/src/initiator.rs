//! The client side: one controller's disk carried over Ethernet.

mod attach;
mod command;
mod flight;
mod ghost;
mod receive;
mod round_trip;
mod statistics;
mod transmit;
mod window;

pub use round_trip::RoundTrip;
pub use statistics::Statistics;

use crate::Instant;
use crate::wire::{Address, MacAddress};
use alloc::collections::VecDeque;
use attach::{State, Target};
use command::{Active, Commands, Stage};
use core::time::Duration;
use flight::{Flight, Packet, Work};
use ghost::Ghosts;
use kagero_devices::ata::identify::NotADisk;
use kagero_devices::storage::{Command, Disk, Tag};
use transmit::MAX_TIMEOUT;
use window::Window;

/// Events that are kept for a caller who doesn't ask; the oldest go first.
const MAX_EVENTS: usize = 32;

/// What an [`Initiator`] has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our address on the link.
    pub mac: MacAddress,
    /// Shelf and slot of the disk.
    pub target: Address,
    /// The link's MTU in bytes. Below 534 not one sector fits, and nothing will be sent.
    pub mtu: usize,
    /// Which of the controller's disks this is: the [`Command::disk`] of its commands.
    pub disk: u8,
    /// What becomes of commands while the target is lost.
    pub on_loss: OnLoss,
    /// Where tags begin: random, so that answers to an earlier initiator with our address mean nothing to us.
    pub seed: u64,
    /// How long a frame can take from us until the target has carried it out, when the target is alive: queues in
    /// switches, and the target's own. After that long, and another answer from the target, an unanswered copy of a write is believed
    /// gone, and newer data may be written over the same sectors. When measured round trips suggest more, more is taken, up to 8 seconds.
    pub frame_lifetime: Duration,
}

impl Config {
    /// The defaults: disk 0, commands held while the target is lost, a frame lifetime of one second, and a seed from the
    /// address, which the caller better replaces by something random.
    #[must_use]
    pub fn new(mac: MacAddress, target: Address, mtu: usize) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        let seed = u64::from_le_bytes([a, b, c, d, e, f, target.slot, 0]);
        Config {
            mac,
            target,
            mtu,
            disk: 0,
            on_loss: OnLoss::Hold,
            seed,
            frame_lifetime: Duration::from_secs(1),
        }
    }
}

/// What becomes of commands while the target is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// They stay under way, the drive busy, until the target is back. The guest's own timers may reset the drive meanwhile.
    Hold,
    /// When the target has been silent for this long, they fail with ABRT, and so do new ones until it is back.
    FailAfter(Duration),
}

/// What an [`Initiator`] has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The target was found and has described its disk: commands may come. Given once.
    Ready(Disk),
    /// The target is there, but what it serves is no disk that we can use; it is asked again from time to time.
    Unusable(NotADisk),
    /// The target does not answer any more, and is looked for.
    TargetLost {
        /// How long it has been silent.
        silent: Duration,
    },
    /// The target answers again; all that was under way is sent anew.
    TargetBack {
        /// Its Ethernet address, which may have changed.
        mac: MacAddress,
        /// How long it was silent.
        silent: Duration,
    },
    /// After [`TargetBack`](Event::TargetBack): its disk is not what it was, in size or in name.
    Changed(Disk),
}

/// Carries one disk's commands to one AoE target, as frames on a link, and its answers back.
///
/// It does no I/O and reads no clock. Payload goes straight between the frame and guest memory, through the
/// [`Controller`](kagero_devices::storage::Controller).
///
/// # Order of calls
///
/// After each of `new`, [`submit`](Self::submit), [`cancel`](Self::cancel), [`handle_frame`](Self::handle_frame), and when the time that
/// [`poll_timeout`](Self::poll_timeout) gave has come:
///
/// 1. [`poll_transmit`](Self::poll_transmit) until it gives `None`, each frame to the link. It also does all that time brings
///    about (resending, giving up), so it is what a timer calls.
/// 2. [`poll`](Self::poll) until it gives `None`.
/// 3. [`poll_timeout`](Self::poll_timeout), for the next wake-up. It may be early, which does no harm, and never late.
///
/// Both `handle_frame` and `poll_transmit` may complete commands, so the controller's interrupt level has to be compared after
/// them. When a link has no room, `poll_transmit` is simply called later.
///
/// # What it sees to
///
/// - *Attaching.* A broadcast config query finds the target; IDENTIFY DEVICE tells its disk; and if frames could be longer than
///   1,500 bytes, one such read finds out whether the path carries them, and shorter ones are taken if not.
/// - *Loss.* Each transmission has a tag of its own, so that round trips are measured exactly and the timer follows RFC 6298. A request is
///   sent again when its time is up, or earlier when later ones were answered. A window bounds the requests in the network,
///   between one and the target's buffer count.
/// - *Order.* Commands that touch the same sectors, one of them writing, are carried out in the order of submission. A flush goes
///   out when all writes submitted before it are done; a Trim is a barrier.
/// - *Late copies.* When a write was sent more than once, or cancelled, a copy of it may still be on its way. No newer write to
///   these sectors is sent until each copy is answered, or has outlived [`Config::frame_lifetime`] and the target has answered
///   something after that (it is asked, if there is nothing else to answer); nor a read, if no copy was ever answered. A network
///   that doubles a frame is expected to deliver both before it delivers anything that was sent after the answer to the first.
/// - *Target loss.* When nothing is answered any more, not even a config query, the target is looked for anew, for ever, and may
///   come back at another Ethernet address. [`OnLoss`] says what becomes of the commands.
#[derive(Clone, Debug)]
pub struct Initiator {
    config: Config,
    state: State,
    target: Target,
    /// What the target said of its disk when it was last attached.
    disk: Option<Disk>,
    commands: Commands,
    flight: Flight,
    ghosts: Ghosts,
    window: Window,
    /// Something has ended that others may have waited for.
    recheck: bool,
    /// A config query is under way to see whether the target is alive.
    asking: bool,
    /// When the target last answered.
    heard: Instant,
    /// The latest transmission that was answered: those before it have been overtaken.
    overtaken: u64,
    /// Since when the target has been silent, from its loss until it is back.
    lost: Option<Instant>,
    events: VecDeque<Event>,
    statistics: Statistics,
}

impl Initiator {
    /// An initiator that will look for its target at once.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let first_tag = crate::random::Random::new(config.seed).next() as u32;
        Initiator {
            config,
            state: State::START,
            target: Target::default(),
            disk: None,
            commands: Commands::default(),
            flight: Flight::new(first_tag),
            ghosts: Ghosts::default(),
            window: Window::new(1),
            recheck: false,
            asking: false,
            heard: Instant::ZERO,
            overtaken: 0,
            lost: None,
            events: VecDeque::new(),
            statistics: Statistics::default(),
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the target said of its disk; `None` until it was found.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The target's Ethernet address, while it answers.
    #[must_use]
    pub fn target_mac(&self) -> Option<MacAddress> {
        self.is_attached().then_some(self.target.mac)
    }

    /// Whether the target is there, as far as is known.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.state == State::Attached
    }

    /// Sectors that one frame carries at most, while the target answers.
    #[must_use]
    pub fn sectors_per_frame(&self) -> Option<u8> {
        self.is_attached().then_some(self.target.sectors)
    }

    /// Commands under way.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Takes a command from the controller.
    ///
    /// # Errors
    /// Gives the command back when 64 are under way.
    pub fn submit(&mut self, _now: Instant, command: Command) -> Result<(), Command> {
        self.commands.submit(command)?;
        self.recheck = true;
        Ok(())
    }

    /// The controller has given up a command: none of its payload is fetched or delivered any more. What was sent of a write may still
    /// arrive, and holds back newer writes as long. An unknown tag is ignored.
    pub fn cancel(&mut self, _now: Instant, tag: Tag) {
        if let Some(slot) = self.commands.find(tag) {
            self.drop_command(slot);
        }
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) next, if nothing happens before; `None` for never. May be early.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let query = match self.state {
            State::Discovering { next, .. } => Some(next),
            State::Attaching | State::Attached => None,
        };
        let waiting = self.is_attached() && !self.asking && self.commands.any_waiting();
        let expiry = if waiting { self.ghosts.next_expiry() } else { None };
        let give_up = match (self.config.on_loss, self.lost) {
            (OnLoss::FailAfter(patience), Some(since)) if self.commands.len() > 0 => Some(since + patience),
            _ => None,
        };
        [query, expiry, give_up, self.flight.earliest()].into_iter().flatten().min()
    }

    /// What there is to tell, oldest first.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Takes a command out with all its packets; the copies of what it wrote become ghosts.
    fn drop_command(&mut self, slot: usize) -> Option<Active> {
        let active = self.commands.remove(slot)?;
        for index in self.flight.indexes() {
            let mine = |packet: &Packet| matches!(packet.work, Work::Piece(piece) if piece.slot == slot);
            if self.flight.get(index).is_some_and(mine)
                && let Some(packet) = self.flight.remove(index)
            {
                self.bury(&packet, None, true, None);
            }
        }
        if active.stage != Stage::Waiting
            && let Some(range) = command::writes(active.command.operation)
        {
            self.ghosts.abandon(range);
        }
        self.recheck = true;
        Some(active)
    }

    /// Remembers each copy of a packet that was taken out, but the one that was answered, if it could still change the disk.
    fn bury(&mut self, packet: &Packet, answered: Option<u32>, abandoned: bool, expires: Option<Instant>) {
        let Some(range) = packet.lands else { return };
        for &tag in packet.copies().iter().filter(|&&tag| Some(tag) != answered) {
            self.ghosts.add(Some(tag), range, abandoned, expires);
        }
        if packet.untracked {
            self.ghosts.add(None, range, abandoned, expires);
        }
    }

    /// How long an unanswered copy can still arrive, once the target is known to be alive.
    ///
    /// Round trips longer than the retransmission timer ever is say nothing of the network: the caller itself was stopped for a while.
    fn lifetime(&self) -> Duration {
        self.config.frame_lifetime.max(self.statistics.round_trip.timeout().min(MAX_TIMEOUT) * 4)
    }
}
