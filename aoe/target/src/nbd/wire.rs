//! The numbers of the protocol (proto.md of the NBD project), all big endian, and how they are read from a stream.
//!
//! Nothing that is read here is trusted: lengths are bounded before there is memory for them.

use std::io::{self, Read};

/// The server's first words: `NBDMAGIC`, then `IHAVEOPT`, or in the old style a number of its own.
pub(super) const HELLO: u64 = u64::from_be_bytes(*b"NBDMAGIC");
pub(super) const NEW_STYLE: u64 = u64::from_be_bytes(*b"IHAVEOPT");
pub(super) const OLD_STYLE: u64 = 0x0000_4202_8186_1253;

/// Handshake flags, the server's and the client's alike.
pub(super) const FIXED_NEW_STYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

pub(super) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;

/// Options that we ask for.
pub(super) mod option {
    pub(in crate::nbd) const EXPORT_NAME: u32 = 1;
    pub(in crate::nbd) const GO: u32 = 7;
    pub(in crate::nbd) const STRUCTURED_REPLY: u32 = 8;
}

/// Answers to options. Errors have the highest bit set.
pub(super) mod answer {
    pub(in crate::nbd) const ACK: u32 = 1;
    pub(in crate::nbd) const INFO: u32 = 3;
    pub(in crate::nbd) const ERROR: u32 = 1 << 31;
    pub(in crate::nbd) const UNSUPPORTED: u32 = ERROR + 1;
    pub(in crate::nbd) const TLS_REQUIRED: u32 = ERROR + 5;
    pub(in crate::nbd) const UNKNOWN: u32 = ERROR + 6;
}

/// Kinds of information about an export.
pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags.
pub(super) mod flag {
    pub(in crate::nbd) const READ_ONLY: u16 = 1 << 1;
    pub(in crate::nbd) const FLUSH: u16 = 1 << 2;
    pub(in crate::nbd) const FUA: u16 = 1 << 3;
    pub(in crate::nbd) const TRIM: u16 = 1 << 5;
}

const REQUEST: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Parts of structured replies.
pub(super) mod chunk {
    pub(in crate::nbd) const DONE: u16 = 1;
    pub(in crate::nbd) const NONE: u16 = 0;
    pub(in crate::nbd) const DATA: u16 = 1;
    pub(in crate::nbd) const HOLE: u16 = 2;
    pub(in crate::nbd) const ERROR: u16 = 1 << 15;
    pub(in crate::nbd) const ERROR_AT: u16 = ERROR + 2;
}

/// The server is about to end.
pub(super) const ESHUTDOWN: u32 = 108;

/// The longest string, and so about the longest payload that is no data (proto.md, "Conventions").
pub(super) const LONGEST_TEXT: u32 = 4_096 + 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
}

/// A request, without the data of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Force unit access: answered when it is on the medium.
    pub(super) durable: bool,
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Request {
    /// A request that is about no bytes.
    pub(super) fn bare(command: Command) -> Self {
        Request { command, durable: false, offset: 0, length: 0 }
    }

    /// As it is sent. The server's reply has the same cookie.
    pub(super) fn encode(&self, cookie: u64) -> [u8; 28] {
        let mut out = [0; 28];
        out[..4].copy_from_slice(&REQUEST.to_be_bytes());
        out[4..6].copy_from_slice(&u16::from(self.durable).to_be_bytes());
        out[6..8].copy_from_slice(&(self.command as u16).to_be_bytes());
        out[8..16].copy_from_slice(&cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

pub(super) fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn u16(input: &mut impl Read) -> io::Result<u16> {
    array(input).map(u16::from_be_bytes)
}

pub(super) fn u32(input: &mut impl Read) -> io::Result<u32> {
    array(input).map(u32::from_be_bytes)
}

pub(super) fn u64(input: &mut impl Read) -> io::Result<u64> {
    array(input).map(u64::from_be_bytes)
}

/// A payload that is no data.
pub(super) fn payload(input: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > LONGEST_TEXT {
        return Err(violation("a payload that is too long"));
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A text of the server's for people to read, made harmless.
pub(super) fn harmless(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// What no NBD server may send.
pub(super) fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
