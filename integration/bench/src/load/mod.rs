//! The load generator: reads with a fixed window over a packet ring. It checks each answer's tag, status and length, and gives a frame
//! that stays unanswered up for lost, which is counted; nothing cleverer, so that it costs little.
//!
//! It is a process that lives as long as the server it reads from. Each line of its standard input asks for one [`Slice`]; each line
//! of its standard output is that slice's [`Outcome`].

mod generator;
mod reading;
mod streams;

pub(crate) use generator::{Generator, Shape};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Ata, Header, encode, sectors_for_mtu};
use kagero_link::{PacketLink, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::time::Duration;

use streams::Streams;
pub(crate) use streams::address;

/// ERR, DRQ, DF and BSY (the Linux driver fails a command on these).
const FAILED: u8 = 0xA9;
/// Sectors of a random read: 4 KiB.
pub(crate) const RANDOM_SECTORS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Pattern {
    /// As many sectors as a frame takes, one after the other
    Sequential,
    /// 4 KiB each, anywhere
    Random,
}

impl Pattern {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Sequential => "sequential",
            Pattern::Random => "random",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    interface: String,
    /// Disks, at [`address`]
    #[arg(long, default_value_t = 1)]
    exports: usize,
    /// The size of each
    #[arg(long)]
    sectors: u64,
    /// Play so many clients, each with an address of its own
    #[arg(long, default_value_t = 1)]
    stations: usize,
    /// Every second client first writes so many frames, spread over the disk
    #[arg(long, default_value_t = 0)]
    writes: u64,
}

/// What one measurement is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) pattern: Pattern,
    /// Frames outstanding, over all disks and clients.
    pub(crate) window: usize,
    pub(crate) milliseconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    pub(crate) operations: u64,
    /// Of operations, in nanoseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) lost: u64,
}

struct Load {
    link: PacketLink,
    streams: Streams,
    per_frame: u64,
    tag: u32,
    latencies: Vec<u64>,
}

/// Reads slices until standard input ends.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.exports > 0 && options.exports <= 255, "there are 1 to 255 disks");
    ensure!(options.stations > 0 && options.stations <= 255, "there are 1 to 255 clients");
    let promiscuous = options.stations > 1;
    let link =
        PacketLink::open(&options.interface, packet::Options { promiscuous, ..packet::Options::default() })?;
    let per_frame = sectors_for_mtu(link.mtu()) as u64;
    ensure!(options.sectors > RANDOM_SECTORS.max(per_frame), "the disks are too small");
    let streams = Streams::new(link.mac(), options.exports, options.stations, options.sectors);
    let mut load = Load { link, streams, per_frame, tag: 0, latencies: Vec::with_capacity(1 << 18) };
    load.find_disks()?;
    load.write_some(options.writes)?;
    for line in std::io::stdin().lock().lines() {
        let outcome = load.read(serde_json::from_str(&line?)?)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}

impl Load {
    /// A tag whose low byte is the slot; the rest tells a late answer from the present one. Bit 31 stays clear.
    fn next_tag(&mut self, slot: usize) -> u32 {
        self.tag = (self.tag + 0x100) & 0x7FFF_FF00;
        self.tag | slot as u32
    }
}

impl Load {
    fn transmit(&mut self, header: &Header, ata: &Ata, data: &[u8]) -> Result<()> {
        let fill = |out: &mut [u8]| {
            let at = ata.encode(out)?;
            out.get_mut(at..at + data.len())?.copy_from_slice(data);
            Some(at + data.len())
        };
        ensure!(
            self.link.transmit(|out| encode(out, header, fill)),
            "the load generator's own interface takes no more frames"
        );
        Ok(())
    }
}

/// Waits until the link has a frame, but not longer than this.
pub(crate) fn wait(link: &PacketLink, at_most: Duration) -> Result<()> {
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut [PollFd::new(link, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for a frame"),
    }
}
