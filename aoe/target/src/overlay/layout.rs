//! What lies where in an overlay file: docs/overlay.md in code. All numbers are little endian.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kagero_aoe::target::Fault;

use crate::{Error, Image};

pub(crate) const MAGIC: &[u8] = b"KAGEROVL";
const VERSION: u32 = 2;

pub(super) const CLUSTER: u64 = 64 << 10;
pub(super) const HEADER: usize = 64;
pub(super) const BASE_PATH: u64 = 512;
pub(super) const LONGEST_PATH: usize = 3_072;
const HALF: u64 = 4096;
pub(super) const HALF_HEADER: usize = 32;
pub(super) const RECORD: usize = 32;
/// Of each half of the journal. In the tests of this crate it is soon full.
pub(super) const RECORDS: u64 = if cfg!(test) { 3 } else { 16_384 };
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

/// The page of the map that has a cluster.
pub(super) fn page_of(cluster: u64) -> usize {
    (cluster / PAGE_ENTRIES as u64) as usize
}

/// Where the header of a half of the journal lies: in a sector of its own.
pub(super) fn half_header(half: usize) -> u64 {
    HALF + 512 * half as u64
}

/// Where a record of a half of the journal lies.
pub(super) fn record(half: usize, number: u64) -> u64 {
    2 * HALF + (half as u64 * RECORDS + number) * RECORD as u64
}

/// What tells one state of a base image from others, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    size: u64,
    /// When the file was last written to, in seconds and nanoseconds; 0 for a block device.
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
        // What is no file has no such time.
        let modified = match base.path().metadata() {
            Ok(metadata) if metadata.is_file() => (metadata.mtime(), metadata.mtime_nsec()),
            _ => (0, 0),
        };
        Self::sampled(base.size(), modified, |at, out| base.read(at, out)).map_err(|_| Error::Kernel {
            path: base.path().into(),
            doing: "read it",
            source: io::ErrorKind::InvalidData.into(),
        })
    }

    /// That of a disk which `read` reads.
    pub(super) fn sampled(
        size: u64,
        modified: (i64, i64),
        read: impl Fn(u64, &mut [u8]) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut digest = FNV;
        for i in 0..64 {
            let length = 4096.min(size);
            let at = ((size - length) / 512 * i / 63) * 512;
            let mut sample = vec![0; length as usize];
            read(at, &mut sample)?;
            digest = fnv(digest, &sample);
        }
        Ok(Identity { size, modified, digest })
    }

    /// The disk's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
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

/// What an overlay file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What the overlay was made over. While it is being committed: what the disk is as its client sees it, with no time.
    pub(super) over: Identity,
    /// Its clusters are being written into its base.
    pub(super) committing: bool,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let Header { over: Identity { size, modified, digest }, committing } = self;
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(CLUSTER as u32).to_le_bytes());
        out[16..24].copy_from_slice(&size.to_le_bytes());
        out[24..32].copy_from_slice(&modified.0.to_le_bytes());
        out[32..40].copy_from_slice(&modified.1.to_le_bytes());
        out[40..48].copy_from_slice(&digest.to_le_bytes());
        out[48..56].copy_from_slice(&u64::from(*committing).to_le_bytes());
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
            return Err("it is of another version");
        }
        let modified = (word(header, 3) as i64, word(header, 4) as i64);
        let over = Identity { size: word(header, 2), modified, digest: word(header, 5) };
        Ok(Header { over, committing: word(header, 6) != 0 })
    }
}

/// A base's path as the file notes it, for messages alone; nothing for one that is too long.
pub(super) fn encode_path(base: &Path) -> Vec<u8> {
    let path = base.canonicalize().unwrap_or_else(|_| base.into());
    let path = path.as_os_str().as_bytes();
    let path = if path.len() > LONGEST_PATH { &[] } else { path };
    let mut out = Vec::from((path.len() as u64).to_le_bytes());
    out.extend(fnv(FNV, path).to_le_bytes());
    out.extend(path);
    out
}

pub(super) fn decode_path(bytes: &[u8]) -> Option<PathBuf> {
    let length = usize::try_from(word(bytes, 0)).ok().filter(|length| (1..=LONGEST_PATH).contains(length))?;
    let path = bytes.get(16..16 + length)?;
    (word(bytes, 1) == fnv(FNV, path)).then(|| OsStr::from_bytes(path).into())
}

/// The name of this run of the machine.
pub(super) fn this_boot() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Ok(u128::from_str_radix(&digits, 16).map_err(io::Error::other)?.to_le_bytes())
}

/// In place of a boot's name: the overlay was closed, and needs no journal.
pub(super) const CLOSED: [u8; 16] = [0; 16];

/// The header of half a journal: which of its records count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    /// The run of the machine in which they do.
    pub(super) boot: [u8; 16],
    pub(super) generation: u64,
}

impl Half {
    pub(super) fn encode(&self) -> [u8; HALF_HEADER] {
        let mut out = [0; HALF_HEADER];
        out[..16].copy_from_slice(&self.boot);
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        let check = fnv(FNV, &out[..24]);
        out[24..].copy_from_slice(&check.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HALF_HEADER]) -> Option<Self> {
        let boot = bytes[..16].try_into().ok()?;
        (word(bytes, 3) == fnv(FNV, &bytes[..24])).then_some(Half { boot, generation: word(bytes, 2) })
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
