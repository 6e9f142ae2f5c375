//! The serving loop: frames in, answers out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kagero_aoe::link::Link;
use kagero_aoe::target::Port;
use kagero_aoe::wire::{Address, MacAddress};
use kagero_link::ServerLink;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Server;
use crate::batch::Batch;
use crate::engine::{Finished, LONE, Lane};

/// Frames taken from one link before the others get their turn. Fewer than any link has transmit buffers.
const BATCH: usize = 64;

/// Requests of one client that we are ready to hold, as config queries report it. A receive ring has room for many such clients.
const BUFFER_COUNT: u16 = 64;

/// How long requests that are under way at the end may take.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// After so long without a frame, memory is given back that only makes things faster.
const REST: Duration = Duration::from_secs(2);

/// How long requests are kept back from a disk that has others, when none of those is done.
const KEPT_BACK: Duration = Duration::from_millis(10);

/// How long the next frame of a client is watched for that waits for each of its answers. To sleep and to be woken takes as long in a virtual machine.
const WATCH: Duration = Duration::from_micros(50);

/// The epoll token of the stop event; links are counted from 0.
const STOP: u64 = u64::MAX;
/// That of what the kernel has done.
const LANE: u64 = u64::MAX - 1;
/// That of what workers have done, and of news.
const MAIL: u64 = u64::MAX - 2;

impl Server {
    /// Serves until `stop` is readable, and then until what was received is answered. Interfaces may go down and come up again, and frames may find
    /// no way out: it goes on.
    ///
    /// # Errors
    /// Only when the kernel refuses to wait for events.
    pub fn serve<L: ServerLink + AsFd>(&self, links: &mut [L], stop: &impl AsFd) -> io::Result<()> {
        Session::new(self, links.iter_mut().enumerate(), vec![stop.as_fd()])?.run()
    }
}

/// One thread that serves.
pub(crate) struct Session<'s, 'l, L> {
    server: &'s Server,
    lane: Lane<'s>,
    stations: Vec<Station<'l, L>>,
    poll: OwnedFd,
    /// What ends it.
    stops: Vec<BorrowedFd<'s>>,
    /// Whether it tells stations of disks; one thread does.
    pub(crate) announces: bool,
    /// While frames come.
    awake: Option<Arc<()>>,
    /// Nothing more is taken in, and what is under way may take until then.
    end: Option<Instant>,
}

/// A link, and what waits for it.
struct Station<'l, L> {
    link: &'l mut L,
    /// Its place among the thread's links.
    place: usize,
    /// The number that disks know it by.
    number: usize,
    /// Answers that found no room in the transmit buffers yet.
    outbox: VecDeque<Finished>,
    /// Batches in a row that were one frame, answered at once.
    lone: u32,
    /// Frames in the transmit buffers wait for the network.
    clogged: bool,
    gone: bool,
    /// What epoll looks for.
    interest: EventFlags,
}

impl<'s, 'l, L: ServerLink + AsFd> Session<'s, 'l, L> {
    pub(crate) fn new(
        server: &'s Server,
        links: impl Iterator<Item = (usize, &'l mut L)>,
        stops: Vec<BorrowedFd<'s>>,
    ) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for stop in &stops {
            epoll::add(&poll, stop, EventData::new_u64(STOP), EventFlags::IN)?;
        }
        let lane = Lane::new(server)?;
        if let Some(bell) = lane.bell() {
            epoll::add(&poll, bell, EventData::new_u64(LANE), EventFlags::IN)?;
        }
        epoll::add(&poll, lane.mail(), EventData::new_u64(MAIL), EventFlags::IN)?;
        let mut stations = Vec::new();
        for (place, (number, link)) in links.enumerate() {
            let station = Station::new(link, place, number);
            epoll::add(&poll, &*station.link, station.event(), station.interest)?;
            stations.push(station);
        }
        Ok(Session { server, lane, stations, poll, stops, announces: true, awake: None, end: None })
    }

    pub(crate) fn run(mut self) -> io::Result<()> {
        self.announce(None);
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            let at_most = match self.end {
                _ if self.lane.keeps() => Some(KEPT_BACK),
                Some(end) => Some(end.saturating_duration_since(Instant::now())),
                None => self.awake.is_some().then_some(REST),
            };
            match epoll::wait(&self.poll, spare_capacity(&mut events), at_most.map(timespec).as_ref()) {
                Ok(0) if self.lane.keeps() => self.lane.release(),
                Ok(0) if self.awake.take().is_some() => self.server.rest(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !events.is_empty() {
                self.awake.get_or_insert_with(|| self.server.awake());
            }
            // Disks get something to do before clients get answers.
            events.sort_unstable_by_key(|event| event.data.u64() == LANE);
            for &Event { flags, data } in &events {
                match data.u64() {
                    STOP => {
                        for stop in self.stops.drain(..) {
                            epoll::delete(&self.poll, stop)?;
                        }
                        self.end = Some(Instant::now() + LAST_REQUESTS);
                    }
                    LANE => {
                        self.lane.collect();
                        self.answer_finished();
                    }
                    MAIL => {
                        self.lane.open_mail();
                        while let Some(disk) = self.lane.announcement() {
                            self.announce(Some(disk));
                        }
                        self.answer_finished();
                    }
                    place => self.serve_link(usize::try_from(place).unwrap_or(usize::MAX), flags),
                }
            }
            let quiet = self.end.is_some() || self.lane.is_full();
            for station in &mut self.stations {
                station.look_for(&self.poll, quiet)?;
            }
            if let Some(end) = self.end
                && (self.is_idle() || Instant::now() >= end)
            {
                return Ok(());
            }
        }
    }

    /// Whether everything is answered.
    fn is_idle(&self) -> bool {
        self.lane.len() == 0 && self.stations.iter().all(|station| station.gone || !station.is_behind())
    }

    /// Tells all stations of a disk, or of every disk, so that who waits for it need not wait longer.
    fn announce(&mut self, disk: Option<Address>) {
        if !self.announces {
            return;
        }
        let target = self.server.target();
        for Station { link, number, .. } in &mut self.stations {
            let port = port(*link, *number);
            let exports =
                target.exports().iter().filter(|export| disk.is_none_or(|disk| disk == export.address));
            for announcement in exports.flat_map(|export| export.announcements(&port)) {
                link.transmit(|out| target.encode(&port, &announcement, out));
            }
        }
    }

    /// Answers what was carried out meanwhile.
    fn answer_finished(&mut self) {
        while let Some(finished) = self.lane.finished() {
            if let Some(station) = self.stations.get_mut(finished.link()) {
                station.answer(finished);
            }
        }
        for station in &mut self.stations {
            station.flush();
        }
    }

    fn serve_link(&mut self, place: usize, flags: EventFlags) {
        let Some(station) = self.stations.get_mut(place) else { return };
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        // A link asks for its error only when it has found no frame twice.
        for _ in 0..if failed { 2 } else { 1 } {
            if station.is_behind() {
                station.catch_up();
            }
            if station.is_behind() || self.lane.is_full() {
                return;
            }
            if self.end.is_none() && station.serve_batches(self.server, &mut self.lane) {
                station.serve_lone(self.server, &mut self.lane);
                return;
            }
        }
        if failed && is_gone(station.link) {
            tracing::warn!("a link is gone; its clients are not served any more");
            station.gone = true;
        }
    }
}

impl<'l, L: ServerLink + AsFd> Station<'l, L> {
    fn new(link: &'l mut L, place: usize, number: usize) -> Self {
        Station {
            link,
            place,
            number,
            outbox: VecDeque::new(),
            lone: 0,
            clogged: false,
            gone: false,
            interest: EventFlags::IN,
        }
    }

    fn event(&self) -> EventData {
        EventData::new_u64(self.place as u64)
    }

    /// Whether answers wait for the network. Who sends faster than that waits in the receive ring.
    fn is_behind(&self) -> bool {
        self.clogged || !self.outbox.is_empty()
    }

    /// Has this sent with the next [`flush`](Self::flush), or when there is room.
    fn answer(&mut self, mut finished: Finished) {
        self.link.hold();
        if !self.outbox.is_empty() || !transmit(self.link, &mut finished) {
            self.outbox.push_back(finished);
        }
    }

    /// Sends the answers that wait, as far as the network takes them.
    fn catch_up(&mut self) {
        self.link.hold();
        while let Some(finished) = self.outbox.front_mut() {
            if !transmit(self.link, finished) {
                break;
            }
            self.outbox.pop_front();
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.clogged = !self.link.flush();
    }

    /// Answers what waits on the link, up to a batch. A client that always waits for its answer gets a few more right away. Whether there was
    /// anything.
    fn serve_batches(&mut self, server: &Server, lane: &mut Lane<'_>) -> bool {
        let served = self.serve_batch(server, lane);
        self.lone = if served == 1 && lane.len() == 0 { self.lone + 1 } else { 0 };
        for _ in 0..BATCH {
            if self.lone < LONE || self.is_behind() {
                break;
            }
            let next_is_lone = self.watch() && self.serve_batch(server, lane) == 1 && lane.len() == 0;
            self.lone = if next_is_lone { LONE } else { 0 };
        }
        served > 0
    }

    /// Finishes a lone request and answers it, and the next one, if that is here by then: a client on this machine may have run meanwhile.
    fn serve_lone(&mut self, server: &Server, lane: &mut Lane<'_>) {
        for _ in 0..BATCH {
            let Some(finished) = lane.finish_lone() else { return };
            self.answer(finished);
            self.flush();
            if self.is_behind() || self.link.has_frame() != Some(true) {
                return;
            }
            self.serve_batch(server, lane);
        }
        lane.submit();
    }

    /// Looks for a frame for a moment, instead of sleeping; whether there is one.
    fn watch(&self) -> bool {
        let until = Instant::now() + WATCH;
        loop {
            match self.link.has_frame() {
                Some(false) if Instant::now() < until => std::hint::spin_loop(),
                found => return found == Some(true),
            }
        }
    }

    /// Answers what waits on the link, up to a batch, and submits what takes longer, but a lone request. How many there were.
    fn serve_batch(&mut self, server: &Server, lane: &mut Lane<'_>) -> usize {
        self.link.hold();
        let mut batch = Batch::new(server, lane, port(self.link, self.number), self.place);
        let served = (0..BATCH).take_while(|_| batch.serve_one(self.link)).count();
        drop(batch);
        if !lane.is_lone() {
            lane.submit();
        }
        self.flush();
        served
    }

    /// Has epoll look for what this link waits for.
    fn look_for(&mut self, poll: &OwnedFd, quiet: bool) -> io::Result<()> {
        let wanted = match (self.is_behind(), quiet) {
            _ if self.gone => EventFlags::empty(),
            (true, _) => EventFlags::OUT,
            (false, true) => EventFlags::empty(),
            (false, false) => EventFlags::IN,
        };
        if wanted != self.interest {
            // Errors are told whatever is asked for, again and again: a link that is gone is left out altogether.
            match self.gone {
                true => epoll::delete(poll, &*self.link)?,
                false => epoll::modify(poll, &*self.link, self.event(), wanted)?,
            }
            self.interest = wanted;
        }
        Ok(())
    }
}

/// Sends an answer; false, and the answer is as it was, when there is no room.
fn transmit(link: &mut impl ServerLink, finished: &mut Finished) -> bool {
    let mut room = false;
    link.transmit_with(|out| {
        room = true;
        finished.encode(out)
    });
    room
}

/// What answers on a link have to say of it. Asked each time, since a link's MTU may change.
fn port(link: &impl Link, number: usize) -> Port {
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    Port { mac: MacAddress(link.mac()), mtu: link.mtu(), buffer_count: BUFFER_COUNT, number }
}

/// Whether a link has an error. A tap whose interface was deleted still has it after it was told, an interface that is down has not.
fn is_gone(link: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(link, PollFlags::empty())];
    poll(&mut polled, Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
