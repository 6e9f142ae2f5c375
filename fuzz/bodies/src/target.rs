//! The target's core under frames from anyone.

use kagero_aoe::target::{Admission, Answer, Export, Fault, Job, Operation, Port, Settings, Step, Target};
use kagero_aoe::wire::{Address, Frame, MAX_CONFIG_STRING, MIN_FRAME, MacAddress, SECTOR};
use kagero_devices::storage::Disk;

use crate::input::Input;

/// The station that [`target_frame`]s are for.
pub const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xee]);
const SHELF: u16 = 7;

/// Sectors of the disks, at 7.0 and so on. The second may not be written to, the third can't trim.
const SIZES: [u64; 3] = [1000, 20, 1 << 40];

/// Who may reach the third disk.
const ADMITTED: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 0]), MacAddress([2, 0, 0, 0, 0, 1])];

/// `data` is a list of frames, and of what becomes of the jobs that they lead to.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let mtu = input.one_of(&[1500, 9000, 1100, 200_000, 4200]);
    let mut bench = Bench::new(mtu);
    while !input.is_empty() {
        let frame = frame(&mut input);
        bench.send(&frame, &mut input);
        if input.rarely(4) {
            bench.finish_one(&mut input);
        }
    }
    while !bench.held.is_empty() {
        bench.finish_one(&mut input);
    }
}

/// A frame for a target at [`SERVER`] that is right, nearly right, or not at all. Its disks are 7.0 to 7.2, with about 1,000 sectors, and
/// its clients a handful.
#[must_use]
pub fn target_frame(data: &[u8]) -> Vec<u8> {
    frame(&mut Input::new(data))
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = match input.below(8) {
        0 => input.bytes(200).to_vec(),
        _ => request(input),
    };
    if input.rarely(3) {
        mutate(&mut frame, input);
    }
    frame
}

struct Bench {
    target: Target,
    port: Port,
    /// Jobs that take longer, with the tag and the sender of their requests.
    held: Vec<(Job<'static>, u32, MacAddress)>,
}

impl Bench {
    fn new(mtu: usize) -> Self {
        let mut target = Target::new();
        for (slot, sectors) in (0..).zip(SIZES) {
            let disk = Disk { sectors, serial: "S".into(), model: "M".into(), trim: slot != 2 };
            let mut export = Export::new(Address { shelf: SHELF, slot }, disk);
            export.read_only = slot == 1;
            if slot == 2 {
                export.admission = Admission::default().only_stations(ADMITTED);
            }
            assert_eq!(target.add(export), Ok(()));
        }
        Bench { target, port: Port { number: 0, mac: SERVER, mtu, buffer_count: 16 }, held: Vec::new() }
    }

    fn send(&mut self, frame: &[u8], input: &mut Input<'_>) {
        let Bench { target, port, held } = self;
        let mut answers = Vec::new();
        target.handle_frame(port, frame, |_, step| {
            let header = Frame::parse(frame).expect("a frame that is carried out is one").header;
            assert!(!header.response && !header.source.is_multicast());
            match step {
                Step::Answer(answer) => answers.push((answer, header.tag, header.source)),
                Step::Job(job) => {
                    check(&job, port);
                    match job.detach() {
                        Ok(job) => held.push((job, header.tag, header.source)),
                        Err(job) => answers.push((job.finish(result(input)), header.tag, header.source)),
                    }
                }
            }
        });
        assert!(answers.len() + held.len() <= 4_000);
        for (answer, tag, to) in answers {
            self.answer(&answer, tag, to, &[]);
        }
        for export in self.target.exports() {
            let Settings { config, mask, reserved } = &export.settings;
            assert!(config.len() <= MAX_CONFIG_STRING);
            assert!(mask.len() <= Settings::MAX_STATIONS && reserved.len() <= Settings::MAX_STATIONS);
        }
    }

    /// Ends a job that was held, any of them.
    fn finish_one(&mut self, input: &mut Input<'_>) {
        if self.held.is_empty() {
            return;
        }
        let at = usize::from(input.u16()) % self.held.len();
        let (job, tag, to) = self.held.swap_remove(at);
        let length = match job.operation {
            Operation::Read { length, .. } => length,
            _ => 0,
        };
        let result = result(input);
        let mut out = vec![0; self.port.mtu + 14];
        let data = job.data(&mut out).map(|data| data.len());
        assert_eq!(data.unwrap_or(0), length, "room for a read");
        let data = vec![0x77; if result.is_ok() { length } else { 0 }];
        self.answer(&job.finish(result), tag, to, &data);
    }

    /// Writes an answer twice, over different leftovers: every byte is its own.
    fn answer(&self, answer: &Answer, tag: u32, to: MacAddress, data: &[u8]) {
        let frames = [0x11, 0xee].map(|leftover| {
            let mut out = vec![leftover; self.port.mtu + 14];
            out[36..36 + data.len()].copy_from_slice(data);
            let length = self.target.encode(&self.port, answer, &mut out).expect("room for any answer");
            out.truncate(length);
            out
        });
        let [frame, other] = &frames;
        assert_eq!(frame, other, "bytes of an earlier frame");
        assert!((MIN_FRAME..=self.port.mtu + 14).contains(&frame.len()));
        let Frame { header, argument } = Frame::parse(frame).expect("a frame");
        assert_eq!((header.tag, header.destination, header.source), (tag, to, SERVER));
        assert!(header.response && header.version == 1 && header.address.shelf == SHELF);
        assert!(header.address.slot != 2 || ADMITTED.contains(&to), "an answer to a stranger");
        assert!(data.is_empty() || &argument[12..12 + data.len()] == data, "the data of a read");
        assert!(header.error.is_none() || answer.is_error());
    }
}

/// A job is something that the disk can do.
fn check(job: &Job<'_>, port: &Port) {
    let Address { shelf: SHELF, slot } = job.address() else { panic!("a disk that is not there") };
    let size = SIZES[usize::from(slot)] * SECTOR as u64;
    let inside = |offset: u64, length: u64| {
        assert!(length > 0 && (offset | length).is_multiple_of(SECTOR as u64), "{job:?}");
        assert!(offset.checked_add(length).is_some_and(|end| end <= size), "{job:?}");
    };
    match job.operation {
        Operation::Read { offset, length } => {
            assert!(length <= usize::from(port.sectors()) * SECTOR, "{job:?}");
            inside(offset, length as u64);
        }
        Operation::Verify { offset, length } => inside(offset, length as u64),
        Operation::Write { offset, data, .. } => {
            inside(offset, data.len() as u64);
            assert!(slot != 1, "a write to a disk that is read only");
        }
        Operation::Trim(ranges) => {
            ranges.iter().for_each(|range| inside(range.offset, range.length));
            assert!(slot == 0, "a trim where there is none");
        }
        Operation::Flush => {}
    }
}

fn result(input: &mut Input<'_>) -> Result<(), Fault> {
    match input.below(8) {
        0 => Err(Fault::Aborted),
        1 => Err(Fault::Medium { done: input.byte() }),
        _ => Ok(()),
    }
}

/// A request that is nearly right.
fn request(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(200);
    let client = |n: u8| [2, 0, 0, 0, 0, n];
    frame.extend(input.one_of(&[SERVER.0, SERVER.0, SERVER.0, [0xff; 6], client(9)]));
    frame.extend(client(input.below(3) as u8));
    frame.extend([0x88, 0xa2, if input.rarely(32) { input.byte() } else { 0x10 }, 0]);
    let address = input.one_of(&[
        [0, 7, 0],
        [0, 7, 0],
        [0, 7, 1],
        [0, 7, 2],
        [0xff, 0xff, 0xff],
        [0, 7, 0xff],
        [0, 8, 0],
    ]);
    frame.extend(address);
    let command = input.one_of(&[0, 0, 0, 0, 1, 2, 3, 0xf0]);
    frame.push(command);
    frame.extend(input.bytes(4));
    frame.resize(24, 0);
    match command {
        0 => ata(&mut frame, input),
        1 => {
            let length = if input.rarely(8) { input.u16() } else { input.below(256) as u16 };
            frame.extend([0, 0, 0, 0, 0, 0x10 | input.below(6) as u8]);
            frame.extend(length.to_be_bytes());
            let string = input.bytes(usize::from(length).min(32));
            frame.extend(string);
            // The end of a long one costs no input.
            frame.resize(32 + usize::from(length).min(1_500), b'x');
        }
        2 => {
            let count = if input.rarely(4) { 200 } else { input.below(5) as u8 };
            frame.extend([0, input.below(3) as u8, 0, count]);
            for n in 0..count {
                let directive = input.one_of(&[1, 1, 2, 0, 3]);
                frame.extend([0, directive]);
                frame.extend(client(if count > 5 { n } else { input.below(4) as u8 }));
            }
        }
        _ => {
            let count = if input.rarely(8) { 200 } else { input.below(4) as u8 };
            frame.extend([input.below(4) as u8, count]);
            for n in 0..count {
                frame.extend(client(if count > 4 { n } else { input.below(4) as u8 }));
            }
        }
    }
    frame
}

fn ata(frame: &mut Vec<u8>, input: &mut Input<'_>) {
    const CODES: [u8; 24] = [
        0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x3d, 0xc8, 0xca, 0x06, 0x40, 0x42, 0xe7, 0xea, 0xec, 0xef,
        0xe5, 0xe0, 0xe6, 0xb0, 0x27, 0xf8, 0x90,
    ];
    let flags = input.one_of(&[0x00, 0x40, 0x41, 0x01, 0x53, 0xff]);
    let count = if input.rarely(4) { input.byte() } else { input.below(4) as u8 };
    let code = if input.rarely(8) { input.byte() } else { input.one_of(&CODES) };
    frame.extend([flags, input.one_of(&[0, 1, 0x03, 0xd0, 0x02, 0xff]), count, code]);
    let near = u64::from(input.u16() & 0x3ff);
    let lba = if input.rarely(8) { input.u64() } else { near };
    frame.extend(&lba.to_le_bytes()[..6]);
    frame.extend([0, 0]);
    let sectors = if input.rarely(8) { input.below(20) } else { usize::from(count).min(20) };
    let data = input.bytes(24);
    frame.extend(data);
    frame.resize(36 + sectors * SECTOR, 0);
}

/// Changes some bytes, or the length.
pub(crate) fn mutate(frame: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.below(4) {
        let (at, value) = (usize::from(input.byte()), input.byte());
        let reach = frame.len().max(1);
        if let Some(byte) = frame.get_mut(at % reach) {
            *byte = value;
        }
    }
    if input.rarely(3) {
        let length =
            if input.rarely(2) { usize::from(input.byte()) } else { usize::from(input.u16()) % 10_000 };
        frame.resize(length, 0);
    }
}
