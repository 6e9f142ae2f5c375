//! A server for tests that can be made odd in every way. What it is told to write stays in its cache until a flush.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::wire::{self, answer, chunk, flag, option};
use super::{NbdUri, uri::ServerAddress};

/// What a server says of itself.
#[derive(Clone)]
pub(super) struct Manners {
    pub(super) size: u64,
    pub(super) flags: u16,
    pub(super) blocks: Option<(u32, u32)>,
    pub(super) structured: bool,
    /// Knows `GO`; all it offers otherwise is `EXPORT_NAME`.
    pub(super) go: bool,
    /// The error to `GO`.
    pub(super) refusal: Option<u32>,
}

impl Default for Manners {
    fn default() -> Self {
        let flags = flag::FLUSH | flag::FUA | flag::TRIM;
        Manners { size: 1 << 20, flags, blocks: None, structured: true, go: true, refusal: None }
    }
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What to do with a request.
pub(super) enum Deed {
    Carry,
    Fail(u32),
    /// Close without an answer, before it is done.
    Leave,
    /// Do it, and close without an answer.
    CarryAndLeave,
    /// Send this, and close.
    Say(Vec<u8>),
    /// Send this, and go on.
    Hold(Vec<u8>),
}

type Whim = Box<dyn FnMut(&Asked) -> Deed + Send>;

struct Inner {
    manners: Mutex<Manners>,
    whim: Mutex<Whim>,
    /// What requests see, and what a loss of power leaves.
    disk: Mutex<(Vec<u8>, Vec<u8>)>,
    connections: Mutex<Vec<UnixStream>>,
    /// Requests by command.
    counts: Mutex<HashMap<u16, usize>>,
    up: Mutex<bool>,
}

pub(super) struct Toy {
    folder: tempfile::TempDir,
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Toy {
    pub(super) fn new(manners: Manners) -> Self {
        let size = manners.size as usize;
        let inner = Inner {
            manners: Mutex::new(manners),
            whim: Mutex::new(Box::new(|_| Deed::Carry)),
            disk: Mutex::new((vec![0; size], vec![0; size])),
            connections: Mutex::default(),
            counts: Mutex::default(),
            up: Mutex::new(false),
        };
        let toy =
            Toy { folder: tempfile::tempdir().unwrap(), inner: Arc::new(inner), threads: Mutex::default() };
        toy.come();
        toy
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    pub(super) fn uri(&self) -> NbdUri {
        NbdUri { server: ServerAddress::Unix(self.socket()), name: "disk".into() }
    }

    pub(super) fn set_whim(&self, whim: impl FnMut(&Asked) -> Deed + Send + 'static) {
        *self.inner.whim.lock().unwrap() = Box::new(whim);
    }

    pub(super) fn set_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.inner.manners.lock().unwrap());
    }

    pub(super) fn count(&self, command: u16) -> usize {
        self.inner.counts.lock().unwrap().get(&command).copied().unwrap_or(0)
    }

    /// What requests see.
    pub(super) fn disk(&self) -> Vec<u8> {
        self.inner.disk.lock().unwrap().0.clone()
    }

    /// What is on the medium.
    pub(super) fn stable(&self) -> Vec<u8> {
        self.inner.disk.lock().unwrap().1.clone()
    }

    /// Cuts all connections.
    pub(super) fn cut(&self) {
        for stream in self.inner.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Ends as by a loss of power.
    pub(super) fn lose_power(&self) {
        self.go();
        let mut disk = self.inner.disk.lock().unwrap();
        disk.0 = disk.1.clone();
    }

    /// Ends.
    pub(super) fn go(&self) {
        if std::mem::replace(&mut *self.inner.up.lock().unwrap(), false) {
            // Wakes the thread that listens.
            let _ = UnixStream::connect(self.socket());
            let _ = std::fs::remove_file(self.socket());
        }
        loop {
            self.cut();
            let Some(thread) = self.threads.lock().unwrap().pop() else { break };
            thread.join().unwrap();
        }
    }

    /// Begins, or begins again.
    pub(super) fn come(&self) {
        *self.inner.up.lock().unwrap() = true;
        let listener = UnixListener::bind(self.socket()).unwrap();
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let up = inner.up.lock().unwrap();
                if !*up {
                    break;
                }
                inner.connections.lock().unwrap().push(stream.try_clone().unwrap());
                drop(up);
                let inner = Arc::clone(&inner);
                threads.push(std::thread::spawn(move || {
                    // An error is the end of the connection.
                    let _ = inner.serve(&stream);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }));
            }
            inner.connections.lock().unwrap().iter().for_each(|stream| {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        self.threads.lock().unwrap().push(thread);
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.go();
    }
}

impl Inner {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let manners = self.manners.lock().unwrap().clone();
        let input = &mut BufReader::new(stream);
        let mut output = stream;
        output.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        wire::u32(input)?;
        loop {
            assert_eq!(wire::u64(input)?, wire::NEW_STYLE);
            let option = wire::u32(input)?;
            let length = wire::u32(input)?;
            let content = wire::payload(input, length)?;
            let mut reply = |kind: u32, content: &[u8]| {
                let length = content.len() as u32;
                let head =
                    [&wire::OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()];
                output.write_all(&[&head.concat()[..], &length.to_be_bytes(), content].concat())
            };
            match option {
                option::STRUCTURED_REPLY if manners.structured => reply(answer::ACK, &[])?,
                option::GO if manners.go => {
                    assert_eq!(&content[4..8], b"disk");
                    if let Some(error) = manners.refusal {
                        reply(error, b"not\x1b for you\n")?;
                        continue;
                    }
                    let export = [&[0, 0][..], &manners.size.to_be_bytes(), &manners.flags.to_be_bytes()];
                    reply(answer::INFO, &[0, 9, 1, 2, 3])?;
                    reply(answer::INFO, &export.concat())?;
                    if let Some((least, most)) = manners.blocks {
                        let sizes = [least.to_be_bytes(), least.to_be_bytes(), most.to_be_bytes()].concat();
                        reply(answer::INFO, &[&[0, 3][..], &sizes].concat())?;
                    }
                    reply(answer::ACK, &[])?;
                    break;
                }
                option::EXPORT_NAME => {
                    assert_eq!(content, b"disk");
                    output.write_all(&manners.size.to_be_bytes())?;
                    output.write_all(&manners.flags.to_be_bytes())?;
                    break;
                }
                _ => reply(answer::UNSUPPORTED, b"what?")?,
            }
        }
        self.transmit(input, output, &manners)
    }

    fn transmit(&self, input: &mut impl Read, mut output: impl Write, manners: &Manners) -> io::Result<()> {
        loop {
            assert_eq!(wire::u32(input)?, 0x2560_9513);
            let (flags, command) = (wire::u16(input)?, wire::u16(input)?);
            let (cookie, offset) = (wire::u64(input)?, wire::u64(input)?);
            let asked = Asked { flags, command, cookie, offset, length: wire::u32(input)? };
            let mut data = vec![0; if command == 1 { asked.length as usize } else { 0 }];
            input.read_exact(&mut data)?;
            let (least, most) = manners.blocks.unwrap_or((1, u32::MAX));
            let sized = asked.length <= most || command == 4;
            let aligned = offset.is_multiple_of(least.into()) && asked.length.is_multiple_of(least);
            assert!(aligned && sized && offset + u64::from(asked.length) <= manners.size, "{asked:?}");
            *self.counts.lock().unwrap().entry(command).or_default() += 1;
            let deed = (self.whim.lock().unwrap())(&asked);
            let error = match deed {
                Deed::Carry => 0,
                Deed::Fail(error) => error,
                Deed::Leave => return Ok(()),
                Deed::CarryAndLeave => {
                    self.carry_out(&asked, &data);
                    return Ok(());
                }
                Deed::Say(bytes) => return output.write_all(&bytes),
                Deed::Hold(bytes) => {
                    output.write_all(&bytes)?;
                    continue;
                }
            };
            if command == 2 {
                return Ok(());
            }
            let read = if error == 0 { self.carry_out(&asked, &data) } else { Vec::new() };
            output.write_all(&if manners.structured {
                chunks(&asked, error, &read)
            } else {
                simple(&asked, error, &read)
            })?;
        }
    }

    fn carry_out(&self, asked: &Asked, data: &[u8]) -> Vec<u8> {
        let mut disk = self.disk.lock().unwrap();
        let (cached, stable) = &mut *disk;
        let range = asked.offset as usize..asked.offset as usize + asked.length as usize;
        match asked.command {
            0 => return cached[range].to_vec(),
            1 => {
                cached[range.clone()].copy_from_slice(data);
                if asked.flags & 1 != 0 {
                    stable[range].copy_from_slice(data);
                }
            }
            3 => stable.copy_from_slice(cached),
            4 => cached[range].fill(0),
            other => panic!("command {other}"),
        }
        Vec::new()
    }
}

pub(super) fn simple(asked: &Asked, error: u32, data: &[u8]) -> Vec<u8> {
    let head = [wire::SIMPLE_REPLY.to_be_bytes(), error.to_be_bytes()].concat();
    [&head[..], &asked.cookie.to_be_bytes(), data].concat()
}

pub(super) fn piece(asked: &Asked, flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let head =
        [&wire::STRUCTURED_REPLY.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes()].concat();
    let length = payload.len() as u32;
    [&head[..], &asked.cookie.to_be_bytes(), &length.to_be_bytes(), payload].concat()
}

/// Reads come in pieces, the last one first, and zeros as a hole.
fn chunks(asked: &Asked, error: u32, data: &[u8]) -> Vec<u8> {
    if error != 0 {
        let place = asked.offset + u64::from(asked.length / 1_024 * 512);
        let payload = [&error.to_be_bytes()[..], &[0, 3], b"no!", &place.to_be_bytes()].concat();
        return piece(asked, chunk::DONE, chunk::ERROR_AT, &payload);
    }
    let mut out = Vec::new();
    for (i, part) in data.chunks(3_000).enumerate().collect::<Vec<_>>().into_iter().rev() {
        let at = (asked.offset + i as u64 * 3_000).to_be_bytes();
        out.extend(if part.iter().all(|&byte| byte == 0) {
            piece(asked, 0, chunk::HOLE, &[&at[..], &(part.len() as u32).to_be_bytes()].concat())
        } else {
            piece(asked, 0, chunk::DATA, &[&at[..], part].concat())
        });
    }
    out.extend(piece(asked, chunk::DONE, chunk::NONE, &[]));
    out
}
