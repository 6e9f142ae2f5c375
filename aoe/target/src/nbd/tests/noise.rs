//! Bytes that make no sense.

use std::io::{self, Cursor, Read, Write};

use super::Random;
use crate::nbd::negotiate::negotiate;
use crate::nbd::reply::Waiting;
use crate::nbd::toy::{piece, simple};
use crate::nbd::wire::{Command, Request, answer, chunk};

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
        let head =
            [crate::nbd::wire::OPTION_REPLY.to_be_bytes().to_vec(), option.to_be_bytes().to_vec()].concat();
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
        let asked =
            |cookie| crate::nbd::toy::Asked { flags: 0, command: 0, cookie, offset: 4_096, length: 1_024 };
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
