//! The target's core, row by row of the protocol: what it answers, what it ignores, what it leaves alone.

use kagero_aoe::target::{
    Admission, Answer, Export, Fault, Job, Operation, Port, Range, Settings, Step, Target,
};
use kagero_aoe::wire::{
    self, Address, Ata, Command, Config, ConfigCommand, DirectiveCommand, ErrorCode, Frame, Header,
    MacAddress, MaskCommand, MaskDirective, MaskError, MaskList, ReserveCommand, ReserveList, SECTOR,
};
use kagero_devices::ata::identify;
use kagero_devices::storage::Disk;
use proptest::prelude::*;

const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);
const DISK: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 1000;

const ABRT: u8 = 0x04;
const IDNF: u8 = 0x10;
const UNC: u8 = 0x40;
const ERR: u8 = 0x01;

/// A target with a storage engine of the simplest kind.
struct Bench {
    target: Target,
    port: Port,
    disk: Vec<u8>,
    jobs: Vec<String>,
    fault: Option<Fault>,
}

fn disk(trim: bool) -> Disk {
    Disk { sectors: SECTORS, serial: "S".into(), model: "Kagero".into(), trim }
}

impl Bench {
    fn new() -> Self {
        let mut target = Target::new();
        target.add(Export::new(DISK, disk(true))).unwrap();
        let port = Port { number: 0, mac: SERVER, mtu: 1_500, buffer_count: 16 };
        let mut disk = vec![0; SECTORS as usize * SECTOR];
        for (sector, bytes) in disk.chunks_exact_mut(SECTOR).enumerate() {
            bytes.fill(sector as u8);
        }
        Bench { target, port, disk, jobs: Vec::new(), fault: None }
    }

    /// Sends a frame; the answers, taken from a transmit buffer full of an earlier client's secrets.
    fn send(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let Bench { target, port, disk, jobs, fault } = self;
        let mut answers = Vec::new();
        target.handle_frame(port, frame, |target, step| {
            let mut out = vec![0xee; port.mtu + 14];
            let answer = match step {
                Step::Answer(answer) => answer,
                Step::Job(job) => {
                    assert_eq!(job.client(), Frame::parse(frame).unwrap().header.source);
                    carry_out(job, disk, jobs, *fault, &mut out)
                }
            };
            let length = target.encode(port, &answer, &mut out).expect("room for any answer");
            let frame = out[..length].to_vec();
            let failed = Frame::parse(&frame).unwrap().header.error.is_some();
            assert!(answer.is_error() || !failed);
            answers.push(frame);
        });
        answers
    }

    /// A request of the usual client, and its answers.
    fn request(&mut self, command: Command, argument: &[u8]) -> Vec<Vec<u8>> {
        self.send(&frame(&header(command), argument))
    }

    fn only(&mut self, command: Command, argument: &[u8]) -> Vec<u8> {
        let mut answers = self.request(command, argument);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    fn ata(&mut self, ata: Ata, data: &[u8]) -> (Ata, Vec<u8>) {
        let answer = self.only(Command::Ata, &ata_argument(ata, data));
        let frame = Frame::parse(&answer).unwrap();
        assert_eq!(frame.header, header(Command::Ata).answer(SERVER, DISK));
        let (registers, rest) = Ata::parse(frame.argument).unwrap();
        (registers, rest.to_vec())
    }

    /// The Error register after a command that must fail without a job.
    fn refused(&mut self, ata: Ata, data: &[u8]) -> u8 {
        let jobs = self.jobs.len();
        let (registers, rest) = self.ata(ata, data);
        assert_eq!(registers.command & ERR, ERR, "{ata:?}");
        assert_eq!(self.jobs.len(), jobs, "{ata:?} reached the disk: {:?}", self.jobs.last());
        assert!(rest.iter().all(|&byte| byte == 0), "data after an error");
        registers.feature
    }

    fn config(&mut self, command: ConfigCommand, string: &[u8]) -> Option<(Option<ErrorCode>, Vec<u8>)> {
        let mut argument = vec![0; 2_000];
        let length = Config { command, string, ..Config::query() }.encode(&mut argument).unwrap();
        let answers = self.request(Command::Config, &argument[..length]);
        let frame = Frame::parse(answers.first()?).unwrap();
        let string = Config::parse(frame.argument).unwrap().string.to_vec();
        Some((frame.header.error, string))
    }

    fn mask(&mut self, directives: &[(DirectiveCommand, MacAddress)]) -> (MaskError, Vec<MacAddress>) {
        let directives = directives.iter().map(|&(command, mac)| MaskDirective { command, mac });
        let mut argument = vec![0; 4_000];
        let length = MaskList::encode(&mut argument, MaskCommand::Edit, MaskError::None, directives).unwrap();
        let answer = self.only(Command::Mask, &argument[..length]);
        let list = MaskList::parse(Frame::parse(&answer).unwrap().argument).unwrap();
        (list.error, list.directives().map(|directive| directive.mac).collect())
    }

    fn reserve(
        &mut self,
        from: MacAddress,
        command: ReserveCommand,
        macs: &[MacAddress],
    ) -> (Option<ErrorCode>, Vec<MacAddress>) {
        let mut argument = vec![0; 4_000];
        let length = ReserveList::encode(&mut argument, command, macs.iter().copied()).unwrap();
        let header = Header { source: from, ..header(Command::Reserve) };
        let answers = self.send(&frame(&header, &argument[..length]));
        let frame = Frame::parse(&answers[0]).unwrap();
        (frame.header.error, ReserveList::parse(frame.argument).unwrap().macs().collect())
    }
}

fn carry_out(
    job: Job<'_>,
    disk: &mut [u8],
    jobs: &mut Vec<String>,
    fault: Option<Fault>,
    out: &mut [u8],
) -> Answer {
    assert_eq!(job.address(), DISK);
    match job.operation {
        Operation::Read { offset, length } => {
            let from = &disk[offset as usize..][..length];
            job.data(out).expect("room for the data").copy_from_slice(from);
            jobs.push(format!("read {length} at {offset}"));
        }
        Operation::Write { offset, data, durable } => {
            disk[offset as usize..][..data.len()].copy_from_slice(data);
            let how = if durable { "durably " } else { "" };
            jobs.push(format!("write {how}{} at {offset}", data.len()));
        }
        Operation::Verify { offset, length } => jobs.push(format!("verify {length} at {offset}")),
        Operation::Flush => jobs.push("flush".into()),
        Operation::Trim(ranges) => {
            for Range { offset, length } in ranges.iter() {
                disk[offset as usize..][..length as usize].fill(0);
                jobs.push(format!("trim {length} at {offset}"));
            }
        }
    }
    job.finish(fault.map_or(Ok(()), Err))
}

fn header(command: Command) -> Header {
    Header::request(CLIENT, SERVER, DISK, command, 0x1234_5678)
}

fn frame(header: &Header, argument: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 10_000];
    let length = wire::encode(&mut out, header, |out| {
        out[..argument.len()].copy_from_slice(argument);
        Some(argument.len())
    });
    out.truncate(length.unwrap());
    out
}

fn ata_argument(ata: Ata, data: &[u8]) -> Vec<u8> {
    let mut argument = vec![0; 12];
    ata.encode(&mut argument).unwrap();
    argument.extend_from_slice(data);
    argument
}

fn command(command: u8, lba: u64, count: u8) -> Ata {
    Ata { extended: true, command, count, lba: Ata::registers(lba), ..Ata::default() }
}

fn identify_argument() -> Vec<u8> {
    ata_argument(command(0xec, 0, 1), &[])
}

// --- Header -------------------------------------------------------------------------------------------------------

#[test]
fn answers_are_unicast_with_our_address_and_the_request_s_tag() {
    let mut bench = Bench::new();
    let request =
        Header { destination: MacAddress::BROADCAST, address: Address::BROADCAST, ..header(Command::Config) };
    let answers = bench.send(&frame(&request, &[0; 8]));
    let answer = Frame::parse(&answers[0]).unwrap().header;
    assert_eq!((answer.source, answer.destination), (SERVER, CLIENT));
    assert_eq!((answer.address, answer.tag, answer.version), (DISK, 0x1234_5678, 1));
    assert!(answer.response && answer.error.is_none());
}

#[test]
fn a_broadcast_reaches_every_disk_and_others_their_own() {
    let mut bench = Bench::new();
    for (shelf, slot) in [(7, 3), (8, 1), (0, 0)] {
        bench.target.add(Export::new(Address { shelf, slot }, disk(false))).unwrap();
    }
    let mut reached = |shelf, slot| {
        let request = Header { address: Address { shelf, slot }, ..header(Command::Config) };
        let answers = bench.send(&frame(&request, &[0; 8]));
        let of = |answer: &Vec<u8>| Frame::parse(answer).unwrap().header.address.to_string();
        answers.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(reached(0xffff, 0xff), ["0.0", "7.1", "7.3", "8.1"]);
    assert_eq!(reached(7, 0xff), ["7.1", "7.3"]);
    assert_eq!(reached(0xffff, 1), ["7.1", "8.1"]);
    assert_eq!(reached(7, 3), ["7.3"]);
    assert!(reached(7, 2).is_empty() && reached(9, 0xff).is_empty());
}

#[test]
fn two_disks_at_one_address_are_refused() {
    let mut bench = Bench::new();
    let error = bench.target.add(Export::new(DISK, disk(false))).unwrap_err();
    assert_eq!(error.to_string(), "two disks have the address 7.1: give each its own shelf.slot");
}

#[test]
fn what_is_not_for_us_is_ignored() {
    let mut bench = Bench::new();
    let good = header(Command::Config);
    assert_eq!(bench.send(&frame(&good, &[0; 8])).len(), 1);
    for ignored in [
        Header { response: true, ..good },
        Header { destination: OTHER, ..good },
        Header { source: MacAddress::BROADCAST, ..good },
        Header { address: Address { shelf: 7, slot: 2 }, ..good },
    ] {
        assert!(bench.send(&frame(&ignored, &[0; 8])).is_empty(), "{ignored:?}");
    }
    let mut other_type = frame(&good, &[0; 8]);
    other_type[13] = 0xa3;
    assert!(bench.send(&other_type).is_empty());
    assert!(bench.send(&frame(&good, &[0; 8])[..23]).is_empty());
}

#[test]
fn other_versions_and_commands_are_named_errors() {
    let mut bench = Bench::new();
    let mut error = |header: Header| {
        let answers = bench.send(&frame(&header, &[0; 100]));
        let frame = Frame::parse(&answers[0]).unwrap();
        assert!(frame.argument.iter().all(|&byte| byte == 0) && answers[0].len() == 60);
        frame.header.error
    };
    assert_eq!(error(Header { version: 2, ..header(Command::Ata) }), Some(ErrorCode::UnsupportedVersion));
    assert_eq!(error(header(Command::Other(4))), Some(ErrorCode::UnrecognizedCommand));
    assert_eq!(error(header(Command::Other(0xf0))), Some(ErrorCode::UnrecognizedCommand));
}

#[test]
fn arguments_that_end_early_are_bad_arguments() {
    let mut bench = Bench::new();
    for (command, argument) in [
        (Command::Ata, &[0u8; 11][..]),
        (Command::Config, &[0; 7]),
        (Command::Config, &[0, 0, 0, 0, 0, 0x13, 0, 1]), // set a string of one byte that is not there
        (Command::Config, &[0, 0, 0, 0, 0, 0x13, 4, 1]), // of 1,025 bytes
        (Command::Config, &[0, 0, 0, 0, 0, 0x15, 0, 0]), // CCmd 5
        (Command::Mask, &[0, 1, 0]),
        (Command::Mask, &[0, 1, 0, 1, 0, 1, 2, 2, 2, 2, 2]), // a directive that is one byte short
        (Command::Mask, &[0, 2, 0, 0]),                      // MCmd 2
        (Command::Reserve, &[1]),
        (Command::Reserve, &[1, 1, 2, 2, 2, 2, 2]),
        (Command::Reserve, &[3, 0]), // RCmd 3
    ] {
        // Sent without padding: the padding would complete some of them.
        let mut bytes = vec![0; 24];
        header(command).encode(&mut bytes).unwrap();
        bytes.extend_from_slice(argument);
        let answers = bench.send(&bytes);
        let error = Frame::parse(&answers[0]).unwrap().header.error;
        assert_eq!(error, Some(ErrorCode::BadArgument), "{command:?} {argument:?}");
    }
    assert_eq!(bench.target.exports()[0].settings, Settings::default(), "nothing was set");
}

// --- ATA ----------------------------------------------------------------------------------------------------------

#[test]
fn every_read_command_reads() {
    let mut bench = Bench::new();
    for code in [0x20, 0x21, 0xc4, 0xc8, 0xc9, 0x24, 0x25, 0x29] {
        let (registers, data) = bench.ata(command(code, 5, 2), &[]);
        assert_eq!((registers.command, registers.feature, registers.count), (0x40, 0, 0), "{code:#x}");
        assert_eq!(data, bench.disk[5 * SECTOR..7 * SECTOR], "{code:#x}");
        assert_eq!(bench.jobs.pop().unwrap(), "read 1024 at 2560");
    }
}

#[test]
fn every_write_command_writes() {
    let mut bench = Bench::new();
    for code in [0x30, 0x31, 0xc5, 0xca, 0xcb, 0x34, 0x35, 0x39, 0x3d, 0xce] {
        let data = vec![code; 2 * SECTOR];
        let before = bench.disk[11 * SECTOR..12 * SECTOR].to_vec();
        let write = Ata { write: true, asynchronous: true, ..command(code, 9, 2) };
        let (registers, rest) = bench.ata(write, &data);
        assert_eq!((registers.command, registers.feature, registers.count), (0x40, 0, 0), "{code:#x}");
        assert_eq!(bench.disk[9 * SECTOR..11 * SECTOR], data);
        assert_eq!(bench.disk[11 * SECTOR..12 * SECTOR], before);
        assert!(rest.iter().all(|&byte| byte == 0) && rest.len() == 60 - 36, "padding with zeros");
        let durable = matches!(code, 0x3d | 0xce);
        assert_eq!(bench.jobs.pop().unwrap().contains("durably"), durable, "{code:#x}");
    }
}

#[test]
fn addresses_of_28_and_48_bits() {
    let mut bench = Bench::new();
    // The Linux driver writes E0h into the fourth byte of 28-bit addresses.
    let linux = Ata { extended: false, lba: [7, 0, 0, 0xe0, 0, 0], ..command(0x20, 0, 1) };
    assert_eq!(bench.ata(linux, &[]).1, bench.disk[7 * SECTOR..8 * SECTOR]);
    // With 48 bits the same byte is part of the address, whatever flag E says.
    let far = Ata { extended: false, lba: [7, 0, 0, 0xe0, 0, 0], ..command(0x24, 0, 1) };
    assert_eq!(bench.refused(far, &[]), IDNF);
    let bits_28 = Ata { extended: true, lba: [7, 0, 0, 0xe0, 1, 1], ..command(0xc8, 0, 1) };
    assert_eq!(bench.ata(bits_28, &[]).1, bench.disk[7 * SECTOR..8 * SECTOR]);
}

#[test]
fn sectors_that_are_not_there_are_not_found() {
    let mut bench = Bench::new();
    let data = [0; 1024];
    for code in [0x25, 0x35, 0x42] {
        assert_eq!(bench.refused(command(code, SECTORS, 1), &data), IDNF);
        assert_eq!(bench.refused(command(code, SECTORS - 1, 2), &data), IDNF);
        assert_eq!(bench.refused(command(code, (1 << 48) - 1, 2), &data), IDNF);
        let (registers, _) = bench.ata(command(code, SECTORS - 1, 1), &data);
        assert_eq!(registers.command & ERR, 0);
    }
}

#[test]
fn counts_that_a_frame_cannot_carry_are_aborted() {
    let mut bench = Bench::new();
    for code in [0x20, 0x25, 0x30, 0x35, 0x40] {
        assert_eq!(bench.refused(command(code, 0, 0), &[1; 1024]), ABRT, "count 0");
    }
    assert_eq!(bench.refused(command(0x25, 0, 3), &[]), ABRT, "an answer at MTU 1,500 has 2 sectors");
    bench.port.mtu = 9_000;
    assert_eq!(bench.ata(command(0x25, 0, 17), &[]).1.len(), 17 * SECTOR);
    assert_eq!(bench.refused(command(0x25, 0, 18), &[]), ABRT);
    bench.port.mtu = 200_000;
    assert_eq!(bench.ata(command(0x25, 0, 255), &[]).1.len(), 255 * SECTOR);
    assert_eq!(bench.refused(command(0x35, 0, 2), &[1; 1023]), ABRT, "a write whose data ends early");
}

#[test]
fn flush_and_verify_reach_the_disk() {
    let mut bench = Bench::new();
    for code in [0xe7, 0xea, 0xe0, 0xe2, 0xe6] {
        let (registers, _) = bench.ata(command(code, 0, 0), &[]);
        assert_eq!(registers.command, 0x40);
        assert_eq!(bench.jobs.pop().as_deref(), Some("flush"), "{code:#x}");
    }
    bench.ata(command(0x42, 3, 200), &[]);
    assert_eq!(bench.jobs.pop().unwrap(), "verify 102400 at 1536");
}

#[test]
fn trim_is_all_or_nothing() {
    let mut bench = Bench::new();
    let trim = Ata { feature: 1, write: true, ..command(0x06, 0, 1) };
    let block = |ranges: &[(u64, u64)]| {
        let mut block: Vec<u8> =
            ranges.iter().flat_map(|(lba, sectors)| (lba | sectors << 48).to_le_bytes()).collect();
        block.resize(512, 0);
        block
    };
    bench.ata(trim, &block(&[(10, 2), (500, 0), (998, 2)]));
    assert_eq!(bench.jobs, ["trim 1024 at 5120", "trim 1024 at 510976"]);
    bench.jobs.clear();
    assert_eq!(bench.refused(trim, &block(&[(0, 1), (999, 2)])), IDNF);
    assert_eq!(bench.refused(trim, &[0; 511]), ABRT);
    assert_eq!(bench.refused(Ata { feature: 0, ..trim }, &block(&[])), ABRT);
    assert_eq!(bench.refused(Ata { count: 0, ..trim }, &block(&[])), ABRT);
    *bench.target.export_mut(DISK).unwrap() = Export::new(DISK, disk(false));
    assert_eq!(bench.refused(trim, &block(&[(0, 1)])), ABRT, "not offered");
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let mut bench = Bench::new();
    bench.target.export_mut(DISK).unwrap().read_only = true;
    assert_eq!(bench.refused(command(0x35, 0, 1), &[9; 512]), ABRT);
    assert_eq!(bench.refused(Ata { feature: 1, ..command(0x06, 0, 1) }, &[9; 512]), ABRT);
    bench.ata(command(0x25, 0, 1), &[]);
}

#[test]
fn identify_describes_the_disk() {
    let mut bench = Bench::new();
    let (registers, data) = bench.ata(command(0xec, 0, 1), &[]);
    assert_eq!((registers.command & ERR, data.len()), (0, 512));
    let identity = identify::parse(&data.try_into().unwrap()).unwrap();
    assert_eq!(identity.disk, disk(true));
    assert!(identity.ext && identity.dma && identity.fua && identity.flush && identity.flush_ext);
}

#[test]
fn without_a_write_cache_every_write_is_durable() {
    let mut bench = Bench::new();
    bench.ata(Ata { feature: 0x82, ..command(0xef, 0, 0) }, &[]);
    bench.ata(command(0x35, 0, 1), &[9; 512]);
    assert_eq!(bench.jobs.pop().unwrap(), "write durably 512 at 0");
    let word_85 = |data: Vec<u8>| u16::from_le_bytes([data[170], data[171]]);
    assert_eq!(word_85(bench.ata(command(0xec, 0, 1), &[]).1) & 0x20, 0);
    bench.ata(Ata { feature: 0x02, ..command(0xef, 0, 0) }, &[]);
    bench.ata(command(0x35, 0, 1), &[9; 512]);
    assert_eq!(bench.jobs.pop().unwrap(), "write 512 at 0");
    assert_eq!(word_85(bench.ata(command(0xec, 0, 1), &[]).1) & 0x20, 0x20);
}

#[test]
fn check_power_mode_is_answered_whatever_the_count() {
    let mut bench = Bench::new();
    for count in [0, 1] {
        assert_eq!(bench.ata(command(0xe5, 0, count), &[]).0.count, 0xff);
    }
    bench.ata(command(0xe0, 0, 0), &[]);
    assert_eq!(bench.ata(command(0xe5, 0, 0), &[]).0.count, 0);
    bench.ata(command(0x20, 0, 1), &[]);
}

#[test]
fn the_drive_answers_the_rest() {
    let mut bench = Bench::new();
    let native = |bench: &mut Bench, code| bench.ata(command(code, 0, 0), &[]).0.lba;
    assert_eq!(native(&mut bench, 0xf8), Ata::registers(SECTORS - 1));
    assert_eq!(native(&mut bench, 0x27), Ata::registers(SECTORS - 1));
    let smart = |feature| Ata { feature, ..command(0xb0, 0xc2_4f00, 1) };
    let (registers, data) = bench.ata(smart(0xd0), &[]);
    assert_eq!((registers.command & ERR, data.len()), (0, 512));
    assert_eq!(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum");
    let (registers, _) = bench.ata(smart(0xda), &[]);
    assert_eq!((registers.command & ERR, &registers.lba[1..3]), (0, &[0x4f, 0xc2][..]));
    assert_eq!(bench.refused(Ata { feature: 0xd0, ..command(0xb0, 0, 1) }, &[]), ABRT, "without the key");
    for code in [0x00, 0x08, 0xa0, 0xa1, 0x02, 0xff] {
        assert_eq!(bench.refused(command(code, 0, 1), &[]), ABRT, "{code:#x}");
    }
    assert_eq!(bench.refused(Ata { feature: 0x77, ..command(0xef, 0, 0) }, &[]), ABRT);
    assert!(bench.jobs.is_empty());
}

#[test]
fn a_failing_disk_is_an_ata_error() {
    let mut bench = Bench::new();
    bench.fault = Some(Fault::Medium { done: 1 });
    let (registers, data) = bench.ata(command(0x25, 100, 2), &[]);
    assert_eq!((registers.command & ERR, registers.feature), (ERR, UNC));
    assert_eq!(registers.address(), 101, "the sector that failed");
    assert!(data.len() == 60 - 36 && data.iter().all(|&byte| byte == 0), "no data, and none of the buffer's");
    bench.fault = Some(Fault::Aborted);
    let (registers, _) = bench.ata(command(0xea, 0, 0), &[]);
    assert_eq!((registers.command & ERR, registers.feature), (ERR, ABRT));
}

#[test]
fn a_broadcast_address_changes_nothing() {
    let mut bench = Bench::new();
    let before = bench.disk.clone();
    for address in [Address::BROADCAST, Address { shelf: 7, slot: 0xff }, Address { shelf: 0xffff, slot: 1 }]
    {
        let broadcast = Header { address, ..header(Command::Ata) };
        for ata in [command(0x35, 0, 1), Ata { feature: 1, ..command(0x06, 0, 1) }, command(0xef, 0, 0)] {
            let answers = bench.send(&frame(&broadcast, &ata_argument(ata, &[0x55; 512])));
            let registers = Ata::parse(Frame::parse(&answers[0]).unwrap().argument).unwrap().0;
            assert_eq!((registers.command & ERR, registers.feature), (ERR, ABRT));
        }
        assert_eq!(bench.send(&frame(&broadcast, &identify_argument()))[0].len(), 36 + 512);
    }
    assert!(bench.jobs.is_empty() && bench.disk == before);
}

// --- Config query -------------------------------------------------------------------------------------------------

#[test]
fn config_tells_what_fits() {
    let mut bench = Bench::new();
    for (mtu, sectors) in [(1_500, 2), (9_000, 17), (22 + 128 * 512, 128), (200_000, 255), (1_100, 2)] {
        bench.port.mtu = mtu;
        let answer = bench.only(Command::Config, &[0; 8]);
        let config = Config::parse(Frame::parse(&answer).unwrap().argument).unwrap();
        assert_eq!((config.sectors, config.buffer_count, config.version), (sectors, 16, 1));
        assert_eq!(answer.len(), 60);
    }
}

#[test]
fn a_start_is_announced_to_all() {
    let bench = Bench::new();
    let mut out = [0xee; 1_514];
    let answers: Vec<_> = bench.target.announcements(&bench.port).collect();
    assert_eq!(answers.len(), 1);
    let length = bench.target.encode(&bench.port, &answers[0], &mut out).unwrap();
    let Frame { header, argument } = Frame::parse(&out[..length]).unwrap();
    assert_eq!((header.destination, header.source, header.tag), (MacAddress::BROADCAST, SERVER, 0));
    assert!(header.response && header.address == DISK && header.command == Command::Config);
    assert_eq!(Config::parse(argument).unwrap().buffer_count, 16);
}

#[test]
fn config_strings() {
    use ConfigCommand::{ForceSet, Read, Set, TestEqual, TestPrefix};
    let mut bench = Bench::new();
    let ok = |string: &[u8]| Some((None, string.to_vec()));
    assert_eq!(bench.config(Read, b""), ok(b""));
    assert_eq!(bench.config(TestEqual, b""), ok(b""));
    assert_eq!(bench.config(Set, b"rack"), ok(b"rack"));
    assert_eq!(bench.config(Set, b"rack"), ok(b"rack"), "the answer was lost, the client asks again");
    assert_eq!(bench.config(Set, b"other"), Some((Some(ErrorCode::ConfigStringPresent), b"rack".to_vec())));
    assert_eq!(bench.config(TestEqual, b"rack"), ok(b"rack"));
    assert_eq!(bench.config(TestEqual, b"rac"), None, "silence");
    assert_eq!(bench.config(TestPrefix, b"rac"), ok(b"rack"));
    assert_eq!(bench.config(TestPrefix, b"rack 7"), None, "silence");
    assert_eq!(bench.config(ForceSet, &[7; 1_024]), ok(&[7; 1_024]));
    assert_eq!(bench.config(Read, b"ignored"), ok(&[7; 1_024]));
    assert_eq!(bench.config(ForceSet, b""), ok(b""));
}

// --- Mask list ----------------------------------------------------------------------------------------------------

#[test]
fn mask_lists_let_in_and_keep_out() {
    use DirectiveCommand::{Add, Delete, None};
    let mut bench = Bench::new();
    assert_eq!(bench.mask(&[(Add, CLIENT), (Delete, CLIENT)]), (MaskError::None, vec![]));
    assert_eq!(
        bench.mask(&[(Add, CLIENT), (None, OTHER), (Add, CLIENT), (Add, OTHER), (Delete, OTHER)]),
        (MaskError::None, vec![CLIENT])
    );
    let stranger = Header { source: OTHER, ..header(Command::Config) };
    for command in [Command::Ata, Command::Config, Command::Mask, Command::Reserve, Command::Other(9)] {
        assert!(bench.send(&frame(&Header { command, ..stranger }, &[0; 36])).is_empty(), "{command:?}");
    }
    assert!(bench.send(&frame(&Header { version: 2, ..stranger }, &[0; 36])).is_empty());
    assert_eq!(bench.mask(&[(Delete, CLIENT)]), (MaskError::None, vec![]));
    assert_eq!(bench.send(&frame(&stranger, &[0; 8])).len(), 1);
}

#[test]
fn a_mask_edit_is_all_or_nothing() {
    use DirectiveCommand::{Add, Other};
    let mut bench = Bench::new();
    let stations: Vec<_> = (0..Settings::MAX_STATIONS as u8)
        .map(|i| (Add, MacAddress([2, 0, 0, 0, 1, i])))
        .chain([(Add, CLIENT)])
        .collect();
    assert_eq!(bench.mask(&stations), (MaskError::Full, vec![]));
    assert_eq!(bench.mask(&[(Add, CLIENT), (Other(3), OTHER)]), (MaskError::BadDirective, vec![]));
    assert_eq!(bench.mask(&stations[1..]).1.len(), Settings::MAX_STATIONS, "the longest list fits an answer");
    assert_eq!(bench.mask(&[(Add, OTHER)]).0, MaskError::Full);
}

// --- Reserve ------------------------------------------------------------------------------------------------------

#[test]
fn a_reservation_keeps_others_off_the_disk_only() {
    use ReserveCommand::{ForceSet, Read, Set};
    let mut bench = Bench::new();
    assert_eq!(bench.reserve(CLIENT, Set, &[CLIENT]), (None, vec![CLIENT]));
    let stranger = |command| Header { source: OTHER, ..header(command) };
    let answers = bench.send(&frame(&stranger(Command::Ata), &identify_argument()));
    assert_eq!(Frame::parse(&answers[0]).unwrap().header.error, Some(ErrorCode::TargetReserved));
    let answers = bench.send(&frame(&stranger(Command::Config), &[0; 8]));
    assert_eq!(Frame::parse(&answers[0]).unwrap().header.error, None);
    bench.ata(command(0xec, 0, 1), &[]);

    assert_eq!(bench.reserve(OTHER, Set, &[OTHER]), (Some(ErrorCode::TargetReserved), vec![CLIENT]));
    assert_eq!(bench.reserve(OTHER, Set, &[]), (Some(ErrorCode::TargetReserved), vec![CLIENT]));
    assert_eq!(bench.reserve(OTHER, Read, &[]), (None, vec![CLIENT]));
    assert_eq!(bench.reserve(OTHER, ForceSet, &[OTHER, CLIENT]), (None, vec![OTHER, CLIENT]));
    assert_eq!(bench.reserve(CLIENT, Set, &[]), (None, vec![]), "released");
    let many = vec![CLIENT; Settings::MAX_STATIONS];
    assert_eq!(bench.reserve(CLIENT, Set, &many).1.len(), many.len(), "the longest list fits an answer");
    let more = vec![OTHER; Settings::MAX_STATIONS + 1];
    assert_eq!(bench.reserve(CLIENT, Set, &more).0, Some(ErrorCode::BadArgument));
}

// --- Admission ----------------------------------------------------------------------------------------------------

/// Every command, well-formed and harmful where it can be.
fn every_command() -> Vec<(Command, Vec<u8>)> {
    let mut string = vec![0; 100];
    Config { command: ConfigCommand::ForceSet, string: b"mine", ..Config::query() }
        .encode(&mut string)
        .unwrap();
    let mut mask = vec![0; 100];
    let add = MaskDirective { command: DirectiveCommand::Add, mac: OTHER };
    MaskList::encode(&mut mask, MaskCommand::Edit, MaskError::None, [add].into_iter()).unwrap();
    let mut reserve = vec![0; 100];
    ReserveList::encode(&mut reserve, ReserveCommand::ForceSet, [OTHER].into_iter()).unwrap();
    vec![
        (Command::Ata, identify_argument()),
        (Command::Ata, ata_argument(command(0x25, 0, 1), &[])),
        (Command::Ata, ata_argument(command(0x35, 0, 1), &[0x55; 512])),
        (Command::Config, vec![0; 8]),
        (Command::Config, string),
        (Command::Mask, vec![0; 4]),
        (Command::Mask, mask),
        (Command::Reserve, vec![0; 4]),
        (Command::Reserve, reserve),
        (Command::Other(0xf0), vec![0; 8]),
    ]
}

/// Asserts that nothing that comes from `source` is answered or does anything.
#[track_caller]
fn unheard(bench: &mut Bench, source: MacAddress) {
    let before = (bench.disk.clone(), bench.target.exports()[0].settings.clone());
    for (command, argument) in every_command() {
        for address in [DISK, Address::BROADCAST, Address { slot: 0xff, ..DISK }] {
            for destination in [SERVER, MacAddress::BROADCAST] {
                for version in [1, 2] {
                    let header = Header { source, destination, address, version, ..header(command) };
                    assert!(bench.send(&frame(&header, &argument)).is_empty(), "{header:?}");
                }
            }
        }
    }
    assert!(bench.jobs.is_empty());
    assert_eq!((bench.disk.clone(), bench.target.exports()[0].settings.clone()), before);
}

fn admit(bench: &mut Bench, admission: Admission) {
    bench.target.export_mut(DISK).unwrap().admission = admission;
}

#[test]
fn who_is_not_allowed_gets_no_answer_at_all() {
    let mut bench = Bench::new();
    let many = (0..=255).map(|i| MacAddress([2, 0, 0, 0, 9, i]));
    admit(&mut bench, Admission::default().only_stations(many.chain([CLIENT])));
    unheard(&mut bench, OTHER);
    for (command, argument) in every_command().into_iter().take(5) {
        assert_eq!(bench.request(command, &argument).len(), 1, "{command:?}");
    }
    let last = Header { source: MacAddress([2, 0, 0, 0, 9, 255]), ..header(Command::Config) };
    assert_eq!(bench.send(&frame(&last, &[0; 8])).len(), 1);
    // A list of nobody is a list.
    admit(&mut bench, Admission::default().only_stations([]));
    bench.jobs.clear();
    unheard(&mut bench, CLIENT);
}

#[test]
fn the_operator_s_list_is_not_the_clients_mask() {
    use DirectiveCommand::{Add, Delete};
    let mut bench = Bench::new();
    let admission = Admission::default().only_stations([CLIENT]);
    admit(&mut bench, admission.clone());
    assert_eq!(bench.mask(&[]), (MaskError::None, vec![]), "what a client reads is the mask only");
    assert_eq!(bench.mask(&[(Add, CLIENT), (Add, OTHER)]).1, [CLIENT, OTHER]);
    assert_eq!(bench.target.exports()[0].admission, admission);
    unheard(&mut bench, OTHER);
    // Both have to let a station in.
    assert_eq!(bench.mask(&[(Add, OTHER), (Delete, CLIENT)]).1, [OTHER]);
    unheard(&mut bench, CLIENT);
}

#[test]
fn a_disk_is_there_on_its_own_ports_only() {
    let mut bench = Bench::new();
    admit(&mut bench, Admission::default().only_ports([3, 1]));
    unheard(&mut bench, CLIENT);
    let mut reached = |number| {
        bench.port.number = number;
        let request = Header { address: Address::BROADCAST, ..header(Command::Config) };
        let told = bench.target.announcements(&bench.port).count();
        (bench.send(&frame(&request, &[0; 8])).len(), told)
    };
    assert_eq!([0, 1, 2, 3, 4].map(&mut reached), [(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)]);
}

#[test]
fn a_start_is_announced_to_the_stations_that_are_let_in() {
    let mut bench = Bench::new();
    bench.target.add(Export::new(Address { shelf: 8, slot: 0 }, disk(true))).unwrap();
    admit(&mut bench, Admission::default().only_stations([OTHER, CLIENT]));
    let told: Vec<_> = bench
        .target
        .announcements(&bench.port)
        .map(|answer| {
            let mut out = [0; 1_514];
            let length = bench.target.encode(&bench.port, &answer, &mut out).unwrap();
            let header = Frame::parse(&out[..length]).unwrap().header;
            (header.destination, header.address.to_string())
        })
        .collect();
    assert_eq!(told, [(CLIENT, "7.1".into()), (OTHER, "7.1".into()), (MacAddress::BROADCAST, "8.0".into())]);
}

// --- Anything at all ----------------------------------------------------------------------------------------------

/// Frames that get past the header, with anything behind it.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![Just(DISK), Just(Address::BROADCAST)];
    let code = prop_oneof![Just(0u8), Just(1), Just(2), Just(3), any::<u8>()];
    let head = prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..40);
    let body = prop::collection::vec(any::<u8>(), 0..1_500);
    (address, code, any::<u32>(), head, body).prop_map(|(address, code, tag, head, body)| {
        let header = Header::request(CLIENT, SERVER, address, code.into(), tag);
        let mut frame = vec![0; 24];
        header.encode(&mut frame).unwrap();
        frame.extend(head);
        frame.extend(body);
        frame
    })
}

proptest! {
    #[test]
    fn no_bytes_panic_or_are_answered_wrongly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bench = Bench::new();
        for answer in bench.send(&bytes) {
            prop_assert!(Frame::parse(&answer).unwrap().header.response);
        }
    }

    #[test]
    fn no_sequence_of_requests_breaks_the_target(sequence in prop::collection::vec(frames(), 1..20)) {
        let mut bench = Bench::new();
        for frame in sequence {
            for answer in bench.send(&frame) {
                prop_assert!((60..=1514).contains(&answer.len()));
                let parsed = Frame::parse(&answer).unwrap();
                prop_assert!(parsed.header.response && parsed.header.destination == CLIENT);
                prop_assert_eq!(&answer[20..24], &frame[20..24]);
            }
            let settings = &bench.target.exports()[0].settings;
            prop_assert!(settings.config.len() <= 1_024 && settings.mask.len() <= Settings::MAX_STATIONS);
        }
    }

    /// What the buffer held before never gets out: the answer is the same for any contents of it.
    #[test]
    fn answers_hold_nothing_of_earlier_ones(frame in frames(), seed in any::<u8>()) {
        let mut bench = Bench::new();
        let port = bench.port;
        let mut encode = |fill: u8| {
            let mut answers = Vec::new();
            bench.target.clone().handle_frame(&port, &frame, |target, step| {
                let mut out = vec![fill; 1_514];
                let answer = match step {
                    Step::Answer(answer) => answer,
                    Step::Job(job) => carry_out(job, &mut bench.disk, &mut bench.jobs, None, &mut out),
                };
                let length = target.encode(&port, &answer, &mut out).unwrap();
                answers.push(out[..length].to_vec());
            });
            answers
        };
        prop_assert_eq!(encode(seed), encode(!seed));
    }
}
