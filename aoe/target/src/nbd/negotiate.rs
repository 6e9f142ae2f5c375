//! The negotiation: from the server's first words to an open export (proto.md, "Fixed newstyle negotiation").

use std::io::{Read, Write};

use kagero_aoe::wire::SECTOR;

use super::refusal::NbdRefusal;
use super::wire::{self, answer, flag, harmless, option, violation};

/// No server has more to say to one option than this many replies.
const MOST_REPLIES: usize = 64;

/// The largest request that a server must take if it names no other (proto.md, "Block size constraints").
const USUAL_MAXIMUM: u32 = 32 << 20;

/// What server and client agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The export's size in bytes.
    pub(super) size: u64,
    /// Requests begin and end at multiples of so many bytes, 512 at least.
    pub(super) block: u32,
    /// Reads and writes have at most so many bytes, a multiple of `block`.
    pub(super) longest: u32,
    pub(super) read_only: bool,
    pub(super) flush: bool,
    pub(super) durable_writes: bool,
    pub(super) trim: bool,
    /// Reads are answered in chunks.
    pub(super) structured: bool,
}

impl Terms {
    /// What the server says of an export: its size, transmission flags, the smallest and the largest block.
    fn of(size: u64, flags: u16, blocks: Option<(u32, u32)>, structured: bool) -> Result<Self, NbdRefusal> {
        if size == 0 {
            return Err(NbdRefusal::Empty);
        }
        if !size.is_multiple_of(SECTOR as u64) {
            return Err(NbdRefusal::NotSectors(size));
        }
        // Without a word about it, servers take single bytes.
        let (minimum, maximum) = blocks.unwrap_or((1, USUAL_MAXIMUM));
        let block = minimum.max(SECTOR as u32);
        let longest = maximum.min(USUAL_MAXIMUM) / block * block;
        let possible = minimum.is_power_of_two() && minimum <= 64 << 10 && longest != 0;
        if !possible || !size.is_multiple_of(u64::from(block)) {
            return Err(NbdRefusal::BlockSize { minimum, maximum, size });
        }
        let has = |flag: u16| flags & flag != 0;
        Ok(Terms {
            size,
            block,
            longest,
            read_only: has(flag::READ_ONLY),
            flush: has(flag::FLUSH),
            durable_writes: has(flag::FUA),
            trim: has(flag::TRIM),
            structured,
        })
    }

    /// What of the disk is not as it was; how replies look may differ.
    pub(super) fn difference(&self, now: &Terms) -> Option<&'static str> {
        if now.size != self.size {
            Some("its size")
        } else if now.block > self.block || now.longest < self.longest {
            Some("its block size")
        } else if now.read_only && !self.read_only {
            Some("being read-only")
        } else if (now.flush, now.durable_writes) != (self.flush, self.durable_writes) {
            Some("what it knows of flushes")
        } else {
            None
        }
    }
}

/// Opens the export `name`.
pub(super) fn negotiate(stream: &mut (impl Read + Write), name: &str) -> Result<Terms, NbdRefusal> {
    if wire::u64(stream)? != wire::HELLO {
        return Err(violation("it doesn't say hello").into());
    }
    match wire::u64(stream)? {
        wire::NEW_STYLE => {}
        wire::OLD_STYLE => return Err(NbdRefusal::OldStyle),
        _ => return Err(violation("it doesn't say hello").into()),
    }
    let flags = wire::u16(stream)?;
    if flags & wire::FIXED_NEW_STYLE == 0 {
        return Err(NbdRefusal::OldStyle);
    }
    let ours = flags & (wire::FIXED_NEW_STYLE | wire::NO_ZEROES);
    stream.write_all(&u32::from(ours).to_be_bytes())?;

    ask(stream, option::STRUCTURED_REPLY, &[])?;
    let structured = match reply(stream, option::STRUCTURED_REPLY)? {
        (answer::ACK, _) => true,
        (answer::TLS_REQUIRED, _) => return Err(NbdRefusal::Tls),
        (error, _) if error & answer::ERROR != 0 => false,
        _ => return Err(violation("an answer to something else").into()),
    };
    match go(stream, name, structured)? {
        Some(terms) => Ok(terms),
        None => by_name(stream, name, ours, structured),
    }
}

/// Opens the export the new way; `None` when the server doesn't know it.
fn go(stream: &mut (impl Read + Write), name: &str, structured: bool) -> Result<Option<Terms>, NbdRefusal> {
    let mut question = Vec::with_capacity(name.len() + 8);
    question.extend((name.len() as u32).to_be_bytes());
    question.extend(name.bytes());
    question.extend(1u16.to_be_bytes());
    question.extend(wire::INFO_BLOCK_SIZE.to_be_bytes());
    ask(stream, option::GO, &question)?;
    let (mut export, mut blocks) = (None, None);
    for _ in 0..MOST_REPLIES {
        match reply(stream, option::GO)? {
            (answer::INFO, content) => {
                let content = &mut &content[..];
                match wire::u16(content)? {
                    wire::INFO_EXPORT => export = Some((wire::u64(content)?, wire::u16(content)?)),
                    wire::INFO_BLOCK_SIZE => {
                        let (minimum, _preferred) = (wire::u32(content)?, wire::u32(content)?);
                        blocks = Some((minimum, wire::u32(content)?));
                    }
                    _ => {}
                }
            }
            (answer::ACK, _) => {
                let (size, flags) = export.ok_or_else(|| violation("no word of the export's size"))?;
                return Terms::of(size, flags, blocks, structured).map(Some);
            }
            (answer::UNSUPPORTED, _) => return Ok(None),
            (answer::TLS_REQUIRED, _) => return Err(NbdRefusal::Tls),
            (answer::UNKNOWN, _) => return Err(NbdRefusal::UnknownName(name.into())),
            (error, content) if error & answer::ERROR != 0 => {
                let why = harmless(&content);
                let why = if why.is_empty() { format!("error {}", error & !answer::ERROR) } else { why };
                return Err(NbdRefusal::Refused(why));
            }
            _ => return Err(violation("an answer to something else").into()),
        }
    }
    Err(violation("answers without an end").into())
}

/// Opens the export the old way, in which the server has no words for an error and just leaves.
fn by_name(
    stream: &mut (impl Read + Write),
    name: &str,
    flags: u16,
    structured: bool,
) -> Result<Terms, NbdRefusal> {
    ask(stream, option::EXPORT_NAME, name.as_bytes())?;
    let Ok(size) = wire::u64(stream) else { return Err(NbdRefusal::UnknownName(name.into())) };
    let transmission = wire::u16(stream)?;
    if flags & wire::NO_ZEROES == 0 {
        wire::array::<124>(stream)?;
    }
    Terms::of(size, transmission, None, structured)
}

fn ask(stream: &mut impl Write, option: u32, content: &[u8]) -> Result<(), NbdRefusal> {
    let mut out = Vec::with_capacity(16 + content.len());
    out.extend(wire::NEW_STYLE.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend((content.len() as u32).to_be_bytes());
    out.extend(content);
    Ok(stream.write_all(&out)?)
}

/// A reply to `option`: its type and content.
fn reply(stream: &mut impl Read, option: u32) -> Result<(u32, Vec<u8>), NbdRefusal> {
    if wire::u64(stream)? != wire::OPTION_REPLY || wire::u32(stream)? != option {
        return Err(violation("an answer to something else").into());
    }
    let kind = wire::u32(stream)?;
    let length = wire::u32(stream)?;
    Ok((kind, wire::payload(stream, length)?))
}
