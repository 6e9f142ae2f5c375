//! Disks that don't answer, or not yet: their own requests, and those of others, don't wait for each other.

use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kagero_aoe::link::Link;
use kagero_aoe::target::{Fault, Port, Range, Step};
use kagero_aoe::wire::{self, ATA_LENGTH, Address, Ata, Command, Frame, Header, MacAddress};
use kagero_link::{MemoryLink, memory};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Lane;
use super::workers::MOST;
use crate::{Access, Backend, Image, Location, Running, Server};

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// More requests than any limit lets through.
const MANY: u32 = 2_500;

const READ_SECTORS: u8 = 0x20;

/// Holds up whoever reads.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: u32,
}

impl Gate {
    fn pass(&self) -> Result<(), Fault> {
        self.state.lock().unwrap().waiting += 1;
        self.changed.notify_all();
        if self.wait_until(|state| state.open) { Ok(()) } else { Err(Fault::Aborted) }
    }

    /// Whether it comes to this soon.
    fn wait_until(&self, reached: impl Fn(&State) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| !reached(state)).unwrap();
        !waited.1.timed_out()
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }
}

/// A disk whose bytes are all this number.
#[derive(Debug)]
struct Toy(u8, Option<Arc<Gate>>);

impl Backend for Toy {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read(&self, _: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.1.as_ref().map_or(Ok(()), |gate| gate.pass())?;
        out.fill(self.0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8], _: bool) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn trim(&self, _: Range) -> Result<(), Fault> {
        Ok(())
    }
}

fn export(server: &Server, slot: u8, gate: Option<Arc<Gate>>) {
    let image = Image::new(Box::new(Toy(slot, gate)), Location::File("toy".into()), Access::ReadWrite);
    server.export_image(Address { shelf: 7, slot }, image).unwrap();
}

fn ask(link: &mut MemoryLink, slot: u8, tag: u32) {
    let (from, disk) = (MacAddress(link.mac()), Address { shelf: 7, slot });
    let header = Header::request(from, MacAddress::BROADCAST, disk, Command::Ata, tag);
    let ata = Ata { count: 1, command: READ_SECTORS, ..Ata::default() };
    assert!(link.transmit(|out| wire::encode(out, &header, |out| ata.encode(out))));
}

/// The next answer: the disk, its data's first byte, the tag.
fn answer(link: &mut MemoryLink) -> (u8, u8, u32) {
    loop {
        let mut answer = None;
        let some = link.receive(|frame| {
            let Frame { header, argument } = Frame::parse(frame).unwrap();
            // Disks announce themselves too.
            answer = (header.command == Command::Ata)
                .then(|| (header.address.slot, argument[ATA_LENGTH], header.tag));
        });
        if let Some(answer) = answer {
            return answer;
        }
        let mut ready = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)];
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        assert!(some || poll(&mut ready, Some(&patience)).unwrap() > 0, "no answer");
    }
}

#[test]
fn disks_that_do_not_answer_leave_room_for_one_that_does() {
    const STUCK: u8 = 5;
    const GOOD: u8 = 9;
    let (server, gate) = (Server::new(), Arc::new(Gate::default()));
    (0..STUCK).for_each(|slot| export(&server, slot, Some(Arc::clone(&gate))));
    export(&server, GOOD, None);
    let options = memory::Options { mtu: 1_500, queue: MANY as usize, ..memory::Options::default() };
    let (mut link, there) = MemoryLink::pair(options).unwrap();
    let running = Running::start(server, vec![there]).unwrap();

    for slot in 0..STUCK {
        (0..MANY - 1).for_each(|tag| ask(&mut link, slot, tag));
        // It comes after these.
        ask(&mut link, GOOD, slot.into());
        assert_eq!(answer(&mut link), (GOOD, GOOD, slot.into()));
    }
    let lost = running.counters().unsent;
    let expected = u64::from(MANY - 1) * u64::from(STUCK) - lost;
    assert!(expected > MOST as u64, "{expected}");

    // What was taken in is carried out in the end.
    gate.open();
    for _ in 0..expected {
        let (disk, data, _) = answer(&mut link);
        assert_eq!(disk, data);
    }
    running.stop().unwrap();
}

#[test]
fn requests_wait_for_their_disk_side_by_side() {
    const READS: u32 = 8;
    let (server, gate) = (Server::new(), Arc::new(Gate::default()));
    export(&server, 1, Some(Arc::clone(&gate)));
    let (mut link, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(server, vec![there]).unwrap();
    (0..READS).for_each(|tag| ask(&mut link, 1, tag));
    let together = gate.wait_until(|state| state.waiting == READS);
    gate.open();
    assert!(together, "{gate:?}");
    let mut tags: Vec<u32> = (0..READS).map(|_| answer(&mut link).2).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..READS).collect::<Vec<_>>());
    running.stop().unwrap();
}

/// As if a client had always so many reads outstanding, until it has read so often.
fn read_in_a_loop(lane: &mut Lane<'_>, server: &Server, window: usize, total: usize) {
    let disk = Address { shelf: 7, slot: 0 };
    let port = Port { mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: 1_500, buffer_count: 64, number: 0 };
    let header = Header::request(MacAddress([2; 6]), port.mac, disk, Command::Ata, 1);
    let mut frame = [0; 60];
    let ata = Ata { count: 1, command: READ_SECTORS, ..Ata::default() };
    wire::encode(&mut frame, &header, |out| ata.encode(out)).unwrap();

    let (mut begun, mut done) = (0, 0);
    while done < total {
        while begun < total && begun - done < window {
            server.target().handle_frame(&port, &frame, |_, step| {
                let Step::Job(job) = step else { panic!("{step:?}") };
                lane.begin(&server.served()[&disk], job, None, 0);
            });
            begun += 1;
        }
        lane.submit();
        let events = lane.bell().into_iter().chain([lane.mail()]);
        let mut ready: Vec<_> = events.map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        assert!(poll(&mut ready, Some(&patience)).unwrap() > 0, "{done} of {total}, window {window}");
        lane.collect();
        lane.open_mail();
        done += std::iter::from_fn(|| lane.finished()).count();
    }
    assert!(!lane.keeps() && lane.len() == 0);
}

#[test]
fn nothing_is_kept_back_for_ever() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let server = Server::new();
    server.export(Address { shelf: 7, slot: 0 }, image.path(), Access::ReadOnly).unwrap();
    let mut lane = Lane::new(&server).unwrap();
    for window in (1..=64).chain([3, 64, 1, 64, 17]) {
        read_in_a_loop(&mut lane, &server, window, 7 * window + 5);
    }
}
