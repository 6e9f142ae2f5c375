//! One slice: reads with a fixed window, until the time is over.

use anyhow::{Result, bail, ensure};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Ata, Command, Frame, SECTOR};
use std::time::{Duration, Instant};

use super::{FAILED, Load, Outcome, Pattern, RANDOM_SECTORS, Slice, wait};
use crate::sample::percentile;

/// READ SECTORS EXT.
const READ_EXT: u8 = 0x24;
/// A frame without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);

/// A frame on its way.
#[derive(Clone, Copy)]
struct Flight {
    tag: u32,
    operation: usize,
    sectors: u8,
    sent: Instant,
}

/// A read that takes one or more frames.
#[derive(Clone, Copy)]
struct Operation {
    stream: usize,
    next: u64,
    unsent: u64,
    unanswered: u64,
    started: Instant,
}

/// One slice under way.
struct Reading<'a> {
    load: &'a mut Load,
    pattern: Pattern,
    flights: Vec<Option<Flight>>,
    vacant: Vec<usize>,
    operations: Vec<Operation>,
    /// The operation that has frames to send yet.
    current: Option<usize>,
    free: Vec<usize>,
    outcome: Outcome,
}

impl Load {
    pub(super) fn read(&mut self, slice: Slice) -> Result<Outcome> {
        ensure!(slice.window > 0 && slice.window <= 256, "a window is of 1 to 256 frames");
        self.latencies.clear();
        let mut reading = Reading {
            pattern: slice.pattern,
            flights: vec![None; slice.window],
            vacant: (0..slice.window).collect(),
            operations: Vec::new(),
            current: None,
            free: Vec::new(),
            outcome: Outcome::default(),
            load: self,
        };
        reading.run(Duration::from_millis(slice.milliseconds))?;
        let mut outcome = reading.outcome;
        outcome.p50 = percentile(&mut self.latencies, 0.5);
        outcome.p99 = percentile(&mut self.latencies, 0.99);
        Ok(outcome)
    }
}

impl Reading<'_> {
    /// Sends until the time is over, then waits for what is outstanding, so that the server is idle when its rival's turn comes.
    fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        let mut looked = start;
        let mut last_answer = start;
        loop {
            let now = Instant::now();
            if now.duration_since(looked) > LOST / 4 {
                looked = now;
                self.give_up(now);
            }
            if now.duration_since(start) < time {
                self.load.link.hold();
                while let Some(slot) = self.vacant.pop() {
                    self.send(slot, now)?;
                }
                self.load.link.flush();
            } else if self.vacant.len() == self.flights.len() {
                break;
            }
            if self.take()? {
                last_answer = Instant::now();
            } else {
                wait(&self.load.link, LOST / 4)?;
            }
        }
        self.outcome.seconds = last_answer.duration_since(start).max(time).as_secs_f64();
        Ok(())
    }

    /// Starts the next operation: a free number for it.
    fn start(&mut self, now: Instant) -> usize {
        let sectors = match self.pattern {
            Pattern::Sequential => self.load.per_frame,
            Pattern::Random => RANDOM_SECTORS,
        };
        let (stream, next) = self.load.streams.next(self.pattern, sectors);
        let operation = Operation { stream, next, unsent: sectors, unanswered: sectors, started: now };
        match self.free.pop() {
            Some(index) => {
                self.operations[index] = operation;
                index
            }
            None => {
                self.operations.push(operation);
                self.operations.len() - 1
            }
        }
    }

    fn send(&mut self, slot: usize, now: Instant) -> Result<()> {
        let index = match self.current.take() {
            Some(index) => index,
            None => self.start(now),
        };
        let operation = &mut self.operations[index];
        let sectors = operation.unsent.min(self.load.per_frame);
        let lba = operation.next;
        operation.next += sectors;
        operation.unsent -= sectors;
        if operation.unsent > 0 {
            self.current = Some(index);
        }
        let stream = operation.stream;
        let tag = self.load.next_tag(slot);
        let header = self.load.streams.request(stream, Command::Ata, tag);
        self.flights[slot] = Some(Flight { tag, operation: index, sectors: sectors as u8, sent: now });
        self.load.transmit(&header, &read(lba, sectors as u8), &[])
    }

    /// Takes every answer that has arrived; false when there was none.
    fn take(&mut self) -> Result<bool> {
        let mut some = false;
        let mut now = None;
        loop {
            let mut answer = None;
            let flights = &self.flights;
            if !self.load.link.receive(|frame| answer = check(frame, flights)) {
                return Ok(some);
            }
            let Some(slot) = answer else { continue };
            let Some(flight) = slot.and_then(|slot| self.flights[slot].take()) else {
                bail!("a read failed or was answered with too little data");
            };
            some = true;
            self.vacant.push(flight.tag as usize & 0xFF);
            self.outcome.frames += 1;
            self.outcome.bytes += u64::from(flight.sectors) * SECTOR as u64;
            let operation = &mut self.operations[flight.operation];
            operation.unanswered -= u64::from(flight.sectors);
            if operation.unanswered == 0 {
                let now = *now.get_or_insert_with(Instant::now);
                self.load.latencies.push(now.duration_since(operation.started).as_nanos() as u64);
                self.outcome.operations += 1;
                self.free.push(flight.operation);
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        for (slot, flight) in self.flights.iter_mut().enumerate() {
            // Its operation never ends, and its number is never used again.
            if flight.take_if(|flight| now.duration_since(flight.sent) > LOST).is_some() {
                self.outcome.lost += 1;
                self.vacant.push(slot);
            }
        }
    }
}

fn read(lba: u64, count: u8) -> Ata {
    Ata { extended: true, count, command: READ_EXT, lba: Ata::registers(lba), ..Ata::default() }
}

/// `None` for a frame that answers nothing outstanding; `Some(None)` for an answer that is wrong; else the slot.
fn check(frame: &[u8], flights: &[Option<Flight>]) -> Option<Option<usize>> {
    let Frame { header, argument } = Frame::parse(frame).ok().filter(|frame| frame.header.response)?;
    let slot = header.tag as usize & 0xFF;
    let flight = flights.get(slot)?.as_ref().filter(|flight| flight.tag == header.tag)?;
    let good = header.error.is_none()
        && header.command == Command::Ata
        && Ata::parse(argument).is_ok_and(|(ata, data)| {
            ata.command & FAILED == 0 && Ata::data(data, flight.sectors.into()).is_ok()
        });
    Some(good.then_some(slot))
}

#[cfg(test)]
mod tests {
    use super::super::address;
    use super::*;
    use kagero_aoe::wire::{Header, MacAddress, encode};

    #[test]
    fn answers_are_checked() {
        let flight = Flight { tag: 0x100, operation: 0, sectors: 2, sent: Instant::now() };
        let flights = [Some(flight), None];
        let answer = |tag, status, data: usize| {
            let (us, it) = (MacAddress([2; 6]), MacAddress([4; 6]));
            let header = Header::request(us, it, address(0), Command::Ata, tag).answer(it, address(0));
            let ata = Ata { command: status, ..Ata::default() };
            let mut frame = [0; 2048];
            let length = encode(&mut frame, &header, |out| ata.encode(out).map(|n| n + data)).unwrap();
            check(&frame[..length], &flights)
        };
        assert_eq!(answer(0x100, 0x40, 1024), Some(Some(0)));
        assert_eq!(answer(0x100, 0x40, 1023), Some(None), "too short");
        assert_eq!(answer(0x100, 0x41, 1024), Some(None), "the error bit is set");
        assert_eq!(answer(0x200, 0x40, 1024), None, "of an earlier request");
        assert_eq!(answer(0x101, 0x40, 1024), None, "of nothing outstanding");
        assert_eq!(answer(0x1FF, 0x40, 1024), None, "beyond the window");
    }
}
