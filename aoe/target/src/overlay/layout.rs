//! What lies where in an overlay file: docs/overlay.md in code. All numbers are little endian.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Error, Image};

pub(crate) const MAGIC: &[u8] = b"KAGEROVL";
const VERSION: u32 = 1;

pub(super) const CLUSTER: u64 = 64 << 10;
pub(super) const HEADER: usize = 64;
pub(super) const JOURNAL: u64 = 4096;
pub(super) const JOURNAL_HEADER: usize = 32;
pub(super) const RECORD: usize = 32;
pub(super) const RECORDS: u64 = 32_768;
pub(super) const MAP: u64 = 2 << 20;
pub(super) const PAGE: u64 = 4096;
pub(super) const PAGE_ENTRIES: usize = 512;

/// Where the sizes of an overlay lead to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) size: u64,
    pub(super) clusters: u64,
    /// Where the clusters begin.
    pub(super) data: u64,
}

impl Layout {
    pub(super) fn new(size: u64) -> Self {
        let clusters = size.div_ceil(CLUSTER);
        Layout { size, clusters, data: MAP + (clusters * 8).next_multiple_of(CLUSTER) }
    }
}

/// Where a journal record lies.
pub(super) fn record(number: u64) -> u64 {
    2 * JOURNAL + number * RECORD as u64
}

/// What tells one state of a base image from others, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    size: u64,
    /// When the file was last written to, in seconds and nanoseconds; 0 for a block device and an NBD export.
    modified: (i64, i64),
    /// FNV-1a of 64 samples of 4 KiB, spread evenly.
    digest: u64,
}

impl Identity {
    /// That of this image now.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(base: &Image) -> Result<Self, Error> {
        let kernel = |source| Error::Kernel { path: base.path().into(), doing: "read it", source };
        let metadata = base.location().path().map(Path::metadata).transpose().map_err(kernel)?;
        let file = metadata.filter(Metadata::is_file);
        let modified = file.map_or((0, 0), |file| (file.mtime(), file.mtime_nsec()));
        let (size, mut digest) = (base.size(), FNV);
        for i in 0..64 {
            let length = 4096.min(size);
            let at = ((size - length) / 512 * i / 63) * 512;
            let mut sample = vec![0; length as usize];
            base.read(at, &mut sample).map_err(|_| kernel(io::ErrorKind::InvalidData.into()))?;
            digest = fnv(digest, &sample);
        }
        Ok(Identity { size, modified, digest })
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(CLUSTER as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.size.to_le_bytes());
        out[24..32].copy_from_slice(&self.modified.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.modified.1.to_le_bytes());
        out[40..48].copy_from_slice(&self.digest.to_le_bytes());
        let check = fnv(FNV, &out[..56]);
        out[56..].copy_from_slice(&check.to_le_bytes());
        out
    }

    pub(super) fn decode(header: &[u8; HEADER]) -> Result<Self, &'static str> {
        if &header[..8] != MAGIC {
            return Err("it is no overlay");
        }
        if word(header, 7) != fnv(FNV, &header[..56]) {
            return Err("its header is not as it was written");
        }
        if word(header, 1) != u64::from(VERSION) | CLUSTER << 32 {
            return Err("it is of a later version");
        }
        let modified = (word(header, 3) as i64, word(header, 4) as i64);
        Ok(Identity { size: word(header, 2), modified, digest: word(header, 5) })
    }

    /// How the base that was differs from the one that is.
    pub(super) fn difference(&self, now: &Self) -> &'static str {
        if self.size != now.size {
            "its size"
        } else if self.digest != now.digest {
            "its contents"
        } else {
            "when it was written"
        }
    }
}

/// The journal's header: which records count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    /// The name of this run of the machine.
    pub(super) boot: [u8; 16],
    pub(super) generation: u64,
}

impl Journal {
    /// One that no record in the file can belong to.
    pub(super) fn new() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?.to_le_bytes();
        let mut generation = [0; 8];
        rustix::rand::getrandom(&mut generation, rustix::rand::GetRandomFlags::empty())?;
        Ok(Journal { boot, generation: u64::from_le_bytes(generation) })
    }

    pub(super) fn encode(&self) -> [u8; JOURNAL_HEADER] {
        let mut out = [0; JOURNAL_HEADER];
        out[..16].copy_from_slice(&self.boot);
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        let check = fnv(FNV, &out[..24]);
        out[24..].copy_from_slice(&check.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; JOURNAL_HEADER]) -> Option<Self> {
        let boot = bytes[..16].try_into().ok()?;
        (word(bytes, 3) == fnv(FNV, &bytes[..24])).then_some(Journal { boot, generation: word(bytes, 2) })
    }
}

/// A cluster that was copied since the last flush.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) cluster: u64,
    pub(super) place: u64,
}

impl Record {
    pub(super) fn encode(&self, generation: u64) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        out[..8].copy_from_slice(&generation.to_le_bytes());
        out[8..16].copy_from_slice(&self.cluster.to_le_bytes());
        out[16..24].copy_from_slice(&self.place.to_le_bytes());
        let check = fnv(FNV, &out[..24]);
        out[24..].copy_from_slice(&check.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; RECORD], generation: u64) -> Option<Self> {
        let good = word(bytes, 0) == generation && word(bytes, 3) == fnv(FNV, &bytes[..24]);
        good.then_some(Record { cluster: word(bytes, 1), place: word(bytes, 2) })
    }
}

/// The `number`th 8 bytes.
fn word(bytes: &[u8], number: usize) -> u64 {
    bytes.as_chunks::<8>().0.get(number).map_or(0, |word| u64::from_le_bytes(*word))
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: finds accidents, not forgers.
fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
