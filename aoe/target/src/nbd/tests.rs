//! What servers may do to us.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kagero_aoe::target::{Fault, Range};

use super::negotiate::negotiate;
use super::reply::Waiting;
use super::session::Pace;
use super::toy::{Deed, Manners, Toy, piece, simple};
use super::wire::{Command, Request, answer, chunk, flag};
use super::{Nbd, NbdUri};
use crate::backend::Backend;
use crate::{Access, Image};

/// Requests wait longer than any test lets them.
const PATIENT: Pace = pace(60_000);

const fn pace(patience_ms: u64) -> Pace {
    let (first_delay, longest_delay) = (Duration::from_millis(5), Duration::from_millis(20));
    Pace { patience: Duration::from_millis(patience_ms), first_delay, longest_delay }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Waits until something is so.
#[track_caller]
fn until(mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "that takes too long");
        std::thread::yield_now();
    }
}

fn open(toy: &Toy) -> Nbd {
    Nbd::open(&toy.uri(), Access::ReadWrite, PATIENT).unwrap_or_else(|error| panic!("{error}"))
}

fn all(nbd: &Nbd) -> Vec<u8> {
    let mut data = vec![0; nbd.size() as usize];
    nbd.read(0, &mut data).unwrap();
    data
}

/// Random reads and writes, compared with a model.
fn behaves(toy: &Toy) {
    let nbd = open(toy);
    let size = nbd.size() as usize;
    let mut model = all(&nbd);
    let mut random = Random(5);
    for step in 0..300 {
        let at = random.below(size / 512) * 512;
        let length = ((1 + random.below(64)) * 512).min(size - at);
        match random.below(8) {
            0 => nbd.flush().unwrap(),
            1 => {
                nbd.trim(Range { offset: at as u64, length: length as u64 }).unwrap();
                // What a trim leaves is the server's to say.
                nbd.read(at as u64, &mut model[at..at + length]).unwrap();
            }
            2..5 => {
                let mut back = vec![0; length];
                nbd.read(at as u64, &mut back).unwrap();
                assert!(back == model[at..at + length], "step {step}");
            }
            other => {
                let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                nbd.write(at as u64, &data, other == 5).unwrap();
                model[at..at + length].copy_from_slice(&data);
                if other == 5 {
                    assert!(toy.stable()[at..at + length] == data, "step {step}");
                }
            }
        }
    }
    assert!(toy.disk() == model);
    nbd.flush().unwrap();
    assert!(toy.stable() == model);
}

#[test]
fn servers_of_all_manners() {
    let usual = Manners::default();
    let manners = [
        usual.clone(),
        Manners { structured: false, ..usual.clone() },
        Manners { go: false, structured: false, ..usual.clone() },
        Manners { blocks: Some((1, 8_192)), ..usual.clone() },
        Manners { blocks: Some((4_096, 12_288)), ..usual.clone() },
        Manners { blocks: Some((65_536, u32::MAX)), structured: false, ..usual.clone() },
        Manners { flags: flag::FLUSH, ..usual.clone() },
        Manners { flags: flag::FUA, ..usual },
    ];
    for (i, manners) in manners.into_iter().enumerate() {
        eprintln!("manners {i}");
        behaves(&Toy::new(manners));
    }
}

#[test]
fn parts_of_blocks_from_many_threads() {
    let toy = Toy::new(Manners { blocks: Some((4_096, 65_536)), size: 64 << 10, ..Manners::default() });
    let nbd = &open(&toy);
    std::thread::scope(|scope| {
        // Each has a sector of each block, and nobody's may be written over with what it was.
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 1..=20u8 {
                    for block in 0..16 {
                        let at = block * 4_096 + thread * 512;
                        nbd.write(at, &[round; 512], false).unwrap();
                        let mut back = [0; 512];
                        nbd.read(at, &mut back).unwrap();
                        assert_eq!(back, [round; 512]);
                    }
                }
            });
        }
    });
    assert!(toy.disk().iter().all(|&byte| byte == 20));
}

#[test]
fn many_requests_are_in_flight_at_once() {
    let toy = Toy::new(Manners::default());
    let nbd = &open(&toy);
    // The server answers nothing before it has eight requests, and then the last one first.
    let mut held = Vec::new();
    toy.set_whim(move |asked| {
        if asked.command != 0 {
            return Deed::Carry;
        }
        held.insert(0, *asked);
        if held.len() < 8 {
            // No answer yet: an empty text.
            return Deed::Hold(Vec::new());
        }
        let answers = held.drain(..).flat_map(|asked| {
            let data = [&asked.offset.to_be_bytes()[..], &vec![asked.offset as u8; 512]].concat();
            piece(&asked, chunk::DONE, chunk::DATA, &data)
        });
        Deed::Hold(answers.collect())
    });
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || {
                let mut back = [0; 512];
                for round in 0..10 {
                    let at = (round * 8 + thread) * 512;
                    nbd.read(at, &mut back).unwrap();
                    assert_eq!(back, [at as u8; 512]);
                }
            });
        }
    });
}

#[test]
fn errors_become_the_clients() {
    for structured in [true, false] {
        let toy = Toy::new(Manners { structured, ..Manners::default() });
        let nbd = open(&toy);
        toy.set_whim(|_| Deed::Fail(28));
        assert_eq!(nbd.write(0, &[1; 4_096], false), Err(Fault::Aborted));
        assert_eq!(nbd.read(0, &mut [1; 4_096]), Err(Fault::Aborted));
        // A hint.
        assert_eq!(nbd.trim(Range { offset: 0, length: 4_096 }), Ok(()));
        toy.set_whim(|_| Deed::Fail(5));
        let done = if structured { 4 } else { 0 };
        assert_eq!(nbd.write(0, &[1; 4_096], true), Err(Fault::Medium { done }));
        assert_eq!(nbd.read(8_192, &mut [1; 4_096]), Err(Fault::Medium { done }));
        assert_eq!(nbd.verify(8_192, 4_096), Err(Fault::Medium { done }));
        assert_eq!(toy.disk(), vec![0; 1 << 20]);
        // The connection has survived all that, and its faults don't last.
        toy.set_whim(|_| Deed::Carry);
        nbd.write(0, &[1; 4_096], true).unwrap();
        // But a flush that failed once may have lost what was written.
        toy.set_whim(|_| Deed::Fail(5));
        assert_eq!(nbd.flush(), Err(Fault::Aborted));
        toy.set_whim(|_| Deed::Carry);
        assert_eq!(nbd.flush(), Err(Fault::Aborted));
        assert_eq!(nbd.write(0, &[1; 512], true), Err(Fault::Aborted));
        assert_eq!(nbd.write(0, &[1; 512], false), Ok(()));
    }
}

/// The line that a server with these manners gets.
fn refusal(manners: Manners, access: Access) -> String {
    let toy = Toy::new(manners);
    let text = Nbd::open(&toy.uri(), access, PATIENT).unwrap_err().to_string();
    let name = format!("NBD export {}: ", toy.uri());
    text.strip_prefix(&name).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn what_is_refused_at_the_start() {
    let usual = Manners::default();
    let both = |manners: Manners| {
        let text = refusal(manners.clone(), Access::ReadWrite);
        assert_eq!(refusal(manners, Access::ReadOnly), text);
        text
    };
    let error = |error| Manners { refusal: Some(error), ..usual.clone() };
    assert_eq!(
        both(error(answer::UNKNOWN)),
        "the server has no export \"disk\": `qemu-nbd --list` shows what it has"
    );
    assert!(both(error(answer::TLS_REQUIRED)).starts_with("the server demands TLS, "));
    assert_eq!(both(error(answer::ERROR + 2)), "the server refuses (not  for you): check its log");
    assert_eq!(both(Manners { size: 0, ..usual.clone() }), "it is empty: give it a size");
    assert!(both(Manners { size: 1_000, ..usual.clone() }).starts_with("it has 1000 bytes, not a multiple"));
    let sizes = [(3, 512), (0, 512), (131_072, 1 << 20), (4_096, 512), (1, 0), (1, 100)];
    for (least, most) in sizes {
        let text = both(Manners { blocks: Some((least, most)), ..usual.clone() });
        let line = format!("the server claims blocks of {least} to {most} bytes in 1048576, ");
        assert!(text.starts_with(&line), "{text}");
    }
    let odd = Manners { size: 4_608, blocks: Some((4_096, 4_096)), ..usual.clone() };
    assert!(both(odd).starts_with("the server claims blocks of 4096 to 4096 bytes in 4608, "));

    let read_only = Manners { flags: flag::FLUSH | flag::READ_ONLY, ..usual.clone() };
    let text = refusal(read_only.clone(), Access::ReadWrite);
    assert!(text.starts_with("the server offers it read-only: "), "{text}");
    let volatile = Manners { flags: flag::TRIM, ..usual };
    let text = refusal(volatile.clone(), Access::ReadWrite);
    assert!(text.starts_with("the server knows neither flush nor FUA, "), "{text}");
    for manners in [read_only, volatile] {
        let toy = Toy::new(manners);
        let nbd = Nbd::open(&toy.uri(), Access::ReadOnly, PATIENT).unwrap();
        assert!(all(&nbd) == toy.disk());
        assert_eq!(nbd.write(0, &[1; 512], false), Err(Fault::Aborted));
        assert_eq!(nbd.trim(Range { offset: 0, length: 512 }), Err(Fault::Aborted));
        assert_eq!(nbd.flush(), Ok(()));
    }
}

#[test]
fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let uri: NbdUri = format!("nbd+unix:///a?socket={}/s", folder.path().display()).parse().unwrap();
    let text = Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "NBD export {uri}: no server answers (No such file or directory (os error 2)): start it, or check the host and port, or the socket's path"
        )
    );
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri: NbdUri = format!("nbd://127.0.0.1:{port}/a").parse().unwrap();
    let text = Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string();
    assert!(text.contains(": no server answers (Connection refused"), "{text}");
    // Somebody who speaks something else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri: NbdUri = format!("nbd://{}/a", listener.local_addr().unwrap()).parse().unwrap();
    for (says, line) in [
        (
            &b"220 mail.example.com ESMTP\r\n"[..],
            "what answers there speaks no NBD that we know (it doesn't say",
        ),
        (b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53", "the server speaks only NBD's old style: "),
        (b"NBDMAGICIHAVEOPT\0\0", "the server speaks only NBD's old style: "),
        (b"NBDMAGIC", "the connection ends before the export is open (failed to fill whole buffer): "),
    ] {
        let text = std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(says).unwrap());
            Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string()
        });
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_connection_that_breaks_is_followed_by_another() {
    for structured in [true, false] {
        let toy = Toy::new(Manners { structured, ..Manners::default() });
        let nbd = open(&toy);
        nbd.write(0, &[7; 8_192], false).unwrap();
        let mut random = Random(1);
        // What breaks it, each once.
        for way in 0..12 {
            let fired = Arc::new(AtomicBool::new(false));
            let (once, length) = (Arc::clone(&fired), random.below(400));
            toy.set_whim(move |asked| {
                if once.swap(true, Ordering::Relaxed) {
                    return Deed::Carry;
                }
                let at = asked.offset.to_be_bytes();
                let outside = (asked.offset + 512).to_be_bytes();
                let data = [&at[..], &[9; 4_096]].concat();
                let said = match way {
                    0 => return Deed::Leave,
                    1 => return Deed::CarryAndLeave,
                    2 => return Deed::Fail(108),
                    3 => b"garbage that is no reply at all".to_vec(),
                    4 => simple(&super::toy::Asked { cookie: asked.cookie ^ 77, ..*asked }, 0, &[9; 4_096]),
                    // The middle of a reply.
                    5 => simple(asked, 0, &[9; 4_096])[..16 + length].to_vec(),
                    6 => piece(asked, 1, chunk::DATA, &data)[..20 + length].to_vec(),
                    7 => piece(asked, 1, chunk::DATA, &[&outside[..], &[9; 4_096]].concat()),
                    8 => [piece(asked, 0, chunk::DATA, &data), piece(asked, 1, chunk::DATA, &data)].concat(),
                    9 => piece(asked, 1, chunk::DATA, &data[..1_000]),
                    10 => piece(asked, 1, chunk::HOLE, &[&at[..], &u32::MAX.to_be_bytes()].concat()),
                    _ => {
                        let mut claim = piece(asked, 1, chunk::ERROR, &[]);
                        claim[16..].copy_from_slice(&u32::MAX.to_be_bytes());
                        claim
                    }
                };
                Deed::Say(said)
            });
            let mut back = [0; 4_096];
            nbd.read(4_096, &mut back).unwrap();
            assert_eq!(back, [7; 4_096], "way {way}");
            assert!(fired.load(Ordering::Relaxed));
        }
    }
}

#[test]
fn what_a_server_loses_is_written_again() {
    let toy = Toy::new(Manners::default());
    let nbd = open(&toy);
    nbd.write(0, &[1; 512], false).unwrap();
    nbd.write(512, &[1; 512], false).unwrap();
    nbd.flush().unwrap();
    nbd.write(0, &[2; 1_024], false).unwrap();
    // Durable, and over one that isn't.
    nbd.write(512, &[3; 512], true).unwrap();
    nbd.write(4_096, &[4; 512], false).unwrap();
    nbd.trim(Range { offset: 4_096, length: 512 }).unwrap();
    toy.lose_power();
    assert_eq!(toy.disk()[..512], [1; 512]);
    toy.come();
    nbd.flush().unwrap();
    let stable = toy.stable();
    assert_eq!((&stable[..512], &stable[512..1_024]), (&[2; 512][..], &[3; 512][..]));
    assert_eq!(stable[4_096..4_608], [0; 512]);
    // What was flushed is not written again.
    let writes = toy.count(1);
    toy.lose_power();
    toy.come();
    nbd.flush().unwrap();
    assert_eq!(toy.count(1), writes);
    // What can't be written again is lost, and every flush says so.
    nbd.write(0, &[5; 512], false).unwrap();
    toy.lose_power();
    toy.set_whim(|asked| if asked.command == 1 { Deed::Fail(28) } else { Deed::Carry });
    toy.come();
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    toy.set_whim(|_| Deed::Carry);
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    assert_eq!(nbd.write(0, &[5; 512], true), Err(Fault::Aborted));
    assert_eq!(nbd.read(0, &mut [0; 512]), Ok(()));
}

#[test]
fn much_that_is_unflushed_is_flushed() {
    let toy = Toy::new(Manners { size: 8 << 20, ..Manners::default() });
    let nbd = open(&toy);
    for i in 0..40 {
        nbd.write((i % 8) << 20, &vec![i as u8; 1 << 20], false).unwrap();
    }
    let flushes = toy.count(3);
    assert!((2..=3).contains(&flushes), "{flushes} flushes of 40 MiB");
}

#[test]
fn flushed_writes_outlive_a_server_that_loses_power_again_and_again() {
    const THREADS: usize = 6;
    let toy = Toy::new(Manners { size: 1 << 20, ..Manners::default() });
    let nbd = &open(&toy);
    let toy = &toy;
    let cycles = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = |thread: usize| {
            move || {
                let mut random = Random(thread as u64);
                let place = |i: usize| i * THREADS + thread;
                // What the last write to each place of this thread was.
                let mut written = [0u8; 16];
                while cycles.load(Ordering::Relaxed) < 12 {
                    for _ in 0..20 {
                        let (i, what) = (random.below(16), 1 + random.below(255) as u8);
                        nbd.write(place(i) as u64 * 2_048, &[what; 2_048], random.below(10) == 0).unwrap();
                        written[i] = what;
                        let mut back = [0; 2_048];
                        nbd.read(place(i) as u64 * 2_048, &mut back).unwrap();
                        assert_eq!(back, [what; 2_048]);
                    }
                    nbd.flush().unwrap();
                    let stable = toy.stable();
                    for (i, &what) in written.iter().enumerate() {
                        let found = &stable[place(i) * 2_048..][..2_048];
                        assert!(found.iter().all(|&byte| byte == what), "place {}", place(i));
                    }
                }
            }
        };
        let writers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(writer(thread))).collect();
        let mut random = Random(99);
        while writers.iter().any(|writer| !writer.is_finished()) {
            // After so many requests more.
            let enough = toy.count(1) + random.below(200);
            until(|| toy.count(1) >= enough || writers.iter().all(|writer| writer.is_finished()));
            toy.lose_power();
            toy.come();
            cycles.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[test]
fn patience_ends() {
    let toy = Toy::new(Manners::default());
    let nbd = Nbd::open(&toy.uri(), Access::ReadWrite, pace(300)).unwrap();
    nbd.write(0, &[1; 512], false).unwrap();
    toy.lose_power();
    assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
    assert_eq!(nbd.write(512, &[1; 512], false), Err(Fault::Aborted));
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    toy.come();
    // Nothing was lost, so all is well when it is back.
    until(|| nbd.flush().is_ok());
    assert_eq!(toy.stable()[..512], [1; 512]);
    // A request that no connection survives.
    toy.set_whim(|asked| if asked.command == 0 { Deed::Leave } else { Deed::Carry });
    assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
}

#[test]
fn another_disk_is_not_taken_for_the_one_before() {
    let changes: [fn(&mut Manners); 4] = [
        |manners| manners.size /= 2,
        |manners| manners.blocks = Some((4_096, 4_096)),
        |manners| manners.flags |= flag::READ_ONLY,
        |manners| manners.flags &= !flag::FLUSH,
    ];
    for change in changes {
        let toy = Toy::new(Manners::default());
        let nbd = Nbd::open(&toy.uri(), Access::ReadWrite, pace(500)).unwrap();
        toy.set_manners(change);
        toy.cut();
        assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
        assert_eq!(toy.count(0), 0);
        toy.set_manners(|manners| *manners = Manners::default());
        until(|| nbd.read(0, &mut [0; 512]).is_ok());
    }
}

#[test]
fn the_end_is_said() {
    let toy = Toy::new(Manners::default());
    drop(open(&toy));
    until(|| toy.count(2) > 0);
}

/// Says the same whatever it is asked.
struct Parrot(Cursor<Vec<u8>>);

impl Read for Parrot {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Parrot {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are mostly what the protocol has, so that they get somewhere.
fn noise(random: &mut Random, pieces: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(40) {
        match random.below(4) {
            0 => bytes.extend((0..random.below(9)).map(|_| random.below(256) as u8)),
            1 => bytes.extend(vec![0; random.below(8)]),
            _ => bytes.extend(pieces[random.below(pieces.len())]),
        }
    }
    bytes
}

#[test]
fn noise_in_the_negotiation() {
    let reply = |option: u32, kind: u32, content: &[u8]| {
        let length = content.len() as u32;
        let head = [super::wire::OPTION_REPLY.to_be_bytes().to_vec(), option.to_be_bytes().to_vec()].concat();
        [&head[..], &kind.to_be_bytes(), &length.to_be_bytes(), content].concat()
    };
    let hello = b"NBDMAGICIHAVEOPT\0\x03";
    let export = [&[0, 0][..], &4_096u64.to_be_bytes(), &[0, 4]].concat();
    let blocks = [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 32, 0];
    let pieces = [
        reply(8, 1, &[]),
        reply(8, answer::UNSUPPORTED, b"no"),
        reply(7, answer::INFO, &export),
        reply(7, answer::INFO, &blocks),
        reply(7, answer::INFO, &[0]),
        reply(7, answer::ACK, &[]),
        reply(7, answer::UNSUPPORTED, &[]),
        reply(7, answer::UNKNOWN, &[]),
    ];
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let mut random = Random(11);
    let mut opened = 0;
    for round in 0..60_000 {
        let mut bytes = match round % 8 {
            0 => Vec::new(),
            _ => hello.to_vec(),
        };
        if round % 4 != 0 {
            bytes.extend(pieces[random.below(2)]);
        }
        bytes.extend(noise(&mut random, &pieces));
        if round % 3 == 0 && !bytes.is_empty() {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        if let Ok(terms) = negotiate(&mut Parrot(Cursor::new(bytes)), "name") {
            assert!(terms.size > 0 && terms.size % 512 == 0);
            assert!(terms.block >= 512 && terms.longest >= terms.block && terms.longest % terms.block == 0);
            opened += 1;
        }
    }
    assert!(opened > 100, "only {opened} got to the end");
}

#[test]
fn noise_in_the_replies() {
    let mut random = Random(12);
    let mut answered = 0;
    for round in 0..60_000u64 {
        let structured = round % 3 != 0;
        let waiting = Waiting::default();
        let mut receivers = Vec::new();
        for i in 0..4 {
            let command = [Command::Read, Command::Write, Command::Read, Command::Flush][i];
            let request = Request { command, durable: false, offset: 4_096, length: 1_024 };
            receivers.push(waiting.begin(request).unwrap().1);
        }
        let asked = |cookie| super::toy::Asked { flags: 0, command: 0, cookie, offset: 4_096, length: 1_024 };
        let at = 4_096u64.to_be_bytes();
        let later = 4_608u64.to_be_bytes();
        let cookie = random.below(5) as u64;
        let flags = random.below(2) as u16;
        let pieces = [
            simple(&asked(cookie), 0, &[3; 1_024]),
            simple(&asked(cookie), 5, &[]),
            piece(&asked(cookie), flags, chunk::DATA, &[&at[..], &[3; 512]].concat()),
            piece(&asked(cookie), flags, chunk::DATA, &[&later[..], &[3; 512]].concat()),
            piece(&asked(cookie), flags, chunk::HOLE, &[&at[..], &[0, 0, 2, 0]].concat()),
            piece(&asked(cookie), 1, chunk::NONE, &[]),
            piece(&asked(cookie), flags, chunk::ERROR, &[0, 0, 0, 5, 0, 1, b'x']),
            piece(&asked(cookie), flags, chunk::ERROR_AT, &[&[0, 0, 0, 5, 0, 0][..], &later].concat()),
            piece(&asked(cookie), flags, chunk::ERROR, &[0, 0, 0, 5, 9, 9]),
            piece(&asked(cookie), flags, 0x8007, &[0, 0, 0, 5, 0, 0, 1]),
        ];
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut bytes = match round % 4 {
            0 => noise(&mut random, &pieces),
            _ => (0..1 + random.below(5)).flat_map(|_| pieces[random.below(pieces.len())].to_vec()).collect(),
        };
        if round % 5 == 0 && !bytes.is_empty() {
            let at = random.below(bytes.len().min(32));
            bytes[at] ^= 1 << random.below(8);
        }
        let input = &mut &bytes[..];
        while waiting.receive(input, structured).is_ok() {}
        waiting.close();
        assert!(waiting.begin(Request::bare(Command::Flush)).is_none());
        for (i, receiver) in receivers.iter().enumerate() {
            if let Ok(Ok(data)) = receiver.recv() {
                assert_eq!(data.len(), if i % 2 == 0 { 1_024 } else { 0 });
                answered += 1;
            }
        }
    }
    assert!(answered > 1_000, "only {answered} were answered");
}
