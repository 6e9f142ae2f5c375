//! The initiator between a controller with random commands, an honest target, and someone who sends frames of their own.

use core::time::Duration;
use std::collections::BTreeMap;

use kagero_aoe::Instant;
use kagero_aoe::initiator::{Config, Initiator, OnLoss};
use kagero_aoe::target::{Export, Operation as Work, Port, Step, Target};
use kagero_aoe::wire::{
    Address, Ata, Command as AoeCommand, DATA_OFFSET, Frame, MIN_FRAME, MacAddress, SECTOR, sectors_for_mtu,
};
use kagero_devices::memory::{DmaFault, DmaMemory};
use kagero_devices::storage::{Command, Controller, Disk, Operation, Outcome, Request, Tag};

use crate::input::Input;
use crate::target::mutate;

const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ADDRESS: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 1000;

/// What the transmit buffer holds before.
static LEFTOVER: [u8; 9014] = [0xee; 9014];

/// `data` is a list of things that happen; at its end the network becomes an honest one, and all commands must end.
pub fn initiator(data: &[u8]) {
    let mut input = Input::new(data);
    let mut bench = Bench::new(&mut input);
    while !input.is_empty() {
        bench.act(&mut input);
        assert_eq!(bench.initiator.commands(), bench.controller.under_way.len());
    }
    bench.come_to_an_end();
}

/// There is no guest memory: the controller makes payload up.
struct Nowhere;

impl DmaMemory for Nowhere {
    fn read(&self, gpa: u64, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }

    fn write(&self, gpa: u64, _: &[u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }
}

/// A controller that remembers what is under way, and takes nothing else.
#[derive(Default)]
struct Payloads {
    under_way: BTreeMap<Tag, Operation>,
    /// The payload that was asked for last: whose, and from where on.
    latest: Option<(Tag, u32)>,
}

impl Controller for Payloads {
    fn poll_request(&mut self) -> Option<Request> {
        None
    }

    fn data_in(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]) {
        let operation = self.under_way.get(&tag).expect("data for a command under way");
        let bytes = u64::from(operation.bytes_in());
        assert!(u64::from(at) + data.len() as u64 <= bytes && !data.is_empty(), "{operation:?} at {at}");
    }

    fn data_out(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, out: &mut [u8]) -> Result<(), DmaFault> {
        let operation = self.under_way.get(&tag).expect("payload of a command under way");
        let bytes = u64::from(operation.bytes_out());
        assert!(u64::from(at) + out.len() as u64 <= bytes && !out.is_empty(), "{operation:?} at {at}");
        if tag.0 % 16 == 7 {
            return Err(DmaFault { gpa: 0 });
        }
        self.latest = Some((tag, at));
        fill(tag, at, out);
        Ok(())
    }

    fn complete(&mut self, _: &impl DmaMemory, tag: Tag, outcome: Outcome) {
        let operation = self.under_way.remove(&tag).expect("the end of a command under way");
        if let Outcome::Failed { done, .. } = outcome {
            let units = (operation.bytes_in() + operation.bytes_out()) / SECTOR as u32;
            let verified = matches!(operation, Operation::Verify { .. });
            assert!(done <= units || verified, "{operation:?}: {done} done");
        }
        assert!(outcome != Outcome::DmaFault || tag.0 % 16 == 7);
    }

    fn irq(&self) -> u32 {
        0
    }
}

/// A command's payload, whole sectors of it: quick to make, and another for each command and sector.
fn fill(tag: Tag, at: u32, out: &mut [u8]) {
    for (n, sector) in (at / SECTOR as u32..).zip(out.chunks_mut(SECTOR)) {
        sector.fill((tag.0 * 7 + n * 3) as u8);
    }
}

struct Bench {
    now: Instant,
    initiator: Initiator,
    controller: Payloads,
    tags: u32,
    mtu: usize,
    target: Target,
    port: Port,
    disk: Vec<u8>,
    /// Frames of the initiator that were not answered yet.
    sent: Vec<Vec<u8>>,
}

impl Bench {
    fn new(input: &mut Input<'_>) -> Self {
        let mtu = input.one_of(&[1500, 9000, 1500, 1100, 4200, 100]);
        let on_loss = match input.below(3) {
            0 => OnLoss::FailAfter(Duration::from_millis(input.number() >> 40)),
            _ => OnLoss::Hold,
        };
        let config = Config { on_loss, seed: u64::from(input.byte()), ..Config::new(CLIENT, ADDRESS, mtu) };
        let disk = Disk { sectors: SECTORS, serial: "S".into(), model: "M".into(), trim: true };
        let mut target = Target::new();
        assert_eq!(target.add(Export::new(ADDRESS, disk)), Ok(()));
        let port = Port { number: 0, mac: SERVER, mtu: 9000, buffer_count: 16 };
        let mut bench = Bench {
            now: Instant::from_nanos(1_000_000_000),
            initiator: Initiator::new(config),
            controller: Payloads::default(),
            tags: 0,
            mtu,
            target,
            port,
            disk: vec![0; SECTORS as usize * SECTOR],
            sent: Vec::new(),
        };
        // Mostly all begins well.
        if !input.rarely(8) {
            for _ in 0..6 {
                bench.transmit();
                bench.answer_all();
            }
        }
        bench
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..3 => self.submit(input),
            3 => {
                let at = usize::from(input.byte()) % self.controller.under_way.len().max(1);
                let tag = self.controller.under_way.keys().nth(at).copied();
                self.initiator.cancel(self.now, tag.unwrap_or(Tag(input.u32())));
                tag.map(|tag| self.controller.under_way.remove(&tag));
            }
            4..8 => self.transmit(),
            8..11 => {
                if let Some(answer) = self.pick(input).and_then(|frame| self.answer(&frame)) {
                    self.deliver(&answer);
                }
            }
            11..13 => {
                if let Some(mut answer) = self.pick(input).and_then(|frame| self.answer(&frame)) {
                    mutate(&mut answer, input);
                    self.deliver(&answer);
                }
            }
            13 => {
                let frame = self.made_up(input);
                self.deliver(&frame);
            }
            14 => {
                let timeout = self.initiator.poll_timeout().unwrap_or(self.now);
                self.now = if input.rarely(2) {
                    self.now + Duration::from_nanos(u64::from(input.u32()))
                } else {
                    timeout.max(self.now)
                };
                self.transmit();
            }
            _ => drop(self.initiator.poll()),
        }
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let wild = input.rarely(16);
        let lba = if wild { input.u64() >> 17 } else { u64::from(input.u16()) % SECTORS };
        let sectors = match (wild, input.below(4)) {
            (true, _) => 1 + u32::from(input.u16()),
            (false, 0) => 1 + u32::from(input.byte()),
            (false, few) => few as u32,
        };
        let sectors = if wild { sectors } else { sectors.min((SECTORS - lba) as u32) };
        let operation = match input.below(8) {
            0..3 => Operation::Write { lba, sectors, durable: input.rarely(4) },
            3..6 => Operation::Read { lba, sectors },
            6 => input.one_of(&[Operation::Flush, Operation::Verify { lba, sectors }]),
            _ => Operation::Trim { blocks: 1 + input.below(9) as u32 },
        };
        self.tags += 1;
        let tag = Tag(self.tags);
        let taken = self.initiator.submit(self.now, Command { tag, disk: 0, operation });
        assert_eq!(taken.is_ok(), self.controller.under_way.len() < 64);
        if taken.is_ok() {
            self.controller.under_way.insert(tag, operation);
        }
    }

    /// Takes all frames that the initiator sends now.
    fn transmit(&mut self) {
        let mut buffer = vec![0; self.mtu + 14];
        for count in 0.. {
            assert!(count < 10_000, "a flood");
            buffer.copy_from_slice(&LEFTOVER[..self.mtu + 14]);
            let length = self.initiator.poll_transmit(self.now, &mut self.controller, &Nowhere, &mut buffer);
            let Some(length) = length else { break };
            let frame = &buffer[..length];
            check(frame, &self.controller);
            assert!(buffer[length..] == LEFTOVER[length..buffer.len()], "bytes past the frame's end");
            if self.sent.len() < 256 {
                self.sent.push(frame.to_vec());
            }
        }
        let timeout = self.initiator.poll_timeout();
        assert!(
            timeout.is_none_or(|timeout| timeout > self.now),
            "a time that has passed: a caller would spin"
        );
    }

    fn deliver(&mut self, frame: &[u8]) {
        self.initiator.handle_frame(self.now, frame, &mut self.controller, &Nowhere);
    }

    /// A frame that was sent, to be answered: then, mostly, not again.
    fn pick(&mut self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let at = usize::from(input.byte()).checked_rem(self.sent.len())?;
        Some(if input.rarely(8) { self.sent[at].clone() } else { self.sent.remove(at) })
    }

    /// The honest target's answer.
    fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let Bench { target, port, disk, .. } = self;
        let mut out = vec![0; port.mtu + 14];
        let mut length = None;
        target.handle_frame(port, frame, |target, step| {
            let answer = match step {
                Step::Answer(answer) => answer,
                Step::Job(job) => {
                    match job.operation {
                        Work::Read { offset, length } => {
                            let data = job.data(&mut out).expect("room");
                            data.copy_from_slice(&disk[offset as usize..][..length]);
                        }
                        Work::Write { offset, data, .. } => {
                            disk[offset as usize..][..data.len()].copy_from_slice(data)
                        }
                        Work::Verify { .. } | Work::Flush | Work::Trim(_) => {}
                    }
                    job.finish(Ok(()))
                }
            };
            length = target.encode(port, &answer, &mut out);
        });
        out.truncate(length?);
        Some(out)
    }

    fn answer_all(&mut self) {
        self.now = self.now + Duration::from_micros(100);
        for frame in core::mem::take(&mut self.sent) {
            if let Some(answer) = self.answer(&frame) {
                self.deliver(&answer);
            }
        }
    }

    /// A frame with a header that gets past the first checks, and anything after it.
    fn made_up(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        if !input.rarely(8) {
            frame.extend(input.one_of(&[CLIENT.0, CLIENT.0, [0xff; 6]]));
            frame.extend(input.one_of(&[SERVER.0, SERVER.0, [2, 0, 0, 0, 0, 9]]));
            frame.extend([0x88, 0xa2, 0x18, 0, 0, 7, 1, input.below(2) as u8]);
            // A tag near one that is in use.
            let sent =
                self.sent.last().and_then(|frame| frame.get(20..24)?.try_into().ok()).map(u32::from_be_bytes);
            let tag = sent.unwrap_or(0).wrapping_sub(input.below(8) as u32)
                ^ input.one_of(&[0, 0, 1 << 12, 1 << 31]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(input.bytes(48));
        let length = input.one_of(&[frame.len(), 60, 36 + 512, 36 + 2 * 512, 36 + 17 * 512]);
        frame.resize(length, 0);
        frame
    }

    /// From now on every frame is answered: whatever was believed before, all commands end.
    fn come_to_an_end(&mut self) {
        if sectors_for_mtu(self.mtu) == 0 {
            return;
        }
        let begun = self.now;
        while !self.controller.under_way.is_empty() {
            self.transmit();
            if !self.sent.is_empty() {
                self.answer_all();
            } else if let Some(timeout) = self.initiator.poll_timeout() {
                self.now = self.now.max(timeout);
            } else {
                assert!(self.controller.under_way.is_empty(), "commands that wait for nothing");
            }
            while self.initiator.poll().is_some() {}
            assert!(self.now - begun < Duration::from_secs(600), "some commands never end");
        }
        assert_eq!(self.initiator.commands(), 0);
    }
}

/// A frame of the initiator's says what it means, and nothing else.
fn check(bytes: &[u8], controller: &Payloads) {
    assert!(bytes.len() >= MIN_FRAME);
    let Frame { header, argument } = Frame::parse(bytes).expect("a frame");
    assert!(header.source == CLIENT && header.address == ADDRESS && header.version == 1);
    assert!(!header.response && header.error.is_none());
    let padding = match header.command {
        AoeCommand::Config => &argument[8..],
        AoeCommand::Ata => {
            assert!(!header.destination.is_multicast());
            let (ata, data) = Ata::parse(argument).expect("registers");
            let (tag, at) = controller.latest.unwrap_or((Tag(0), 0));
            if ata.write {
                assert_eq!(bytes.len(), DATA_OFFSET + usize::from(ata.count) * SECTOR);
                let mut payload = vec![0; data.len()];
                fill(tag, at, &mut payload);
                assert!(data == payload, "payload that is not the command's");
                &[]
            } else {
                data
            }
        }
        other => panic!("a request that it has no use for: {other:?}"),
    };
    assert!(padding.iter().all(|&byte| byte == 0), "padding that says something");
}
