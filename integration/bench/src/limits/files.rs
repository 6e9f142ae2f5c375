//! Reads from the page cache and from the disk.

use anyhow::{Result, ensure};
use io_uring::{IoUring, opcode, types::Fd};
use rustix::io::ReadWriteFlags;
use std::fs::{File, OpenOptions};
use std::io::{IoSliceMut, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::fio::Job;
use crate::load::Pattern;

use super::sys::PageBuffers;
use super::{Measure, Options, Rate, Row, Stopwatch, rounds};

const BYTES: u64 = 256 << 20;
const DEPTHS: [usize; 3] = [1, 16, 64];
const BLOCK: usize = 4096;

pub(super) fn measure(folder: &Path, options: &Options) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("kagero-limits-").tempdir_in(folder)?;
    let path = folder.path().join("data");
    let mut cached = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let piece: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte >> 3) as u8).collect();
    for _ in 0..BYTES / piece.len() as u64 {
        cached.write_all(&piece)?;
    }
    cached.sync_all()?;
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);

    let mut measures: Vec<(String, Measure<'_>)> = Vec::new();
    for kib in [4, 64] {
        for (name, flags) in
            [("pread", ReadWriteFlags::empty()), ("preadv2 RWF_NOWAIT", ReadWriteFlags::NOWAIT)]
        {
            let cached = &cached;
            let name = format!("{name}, cached, {kib} KiB");
            measures.push((name, Box::new(move |time| inline(cached, kib << 10, flags, time))));
        }
    }
    for (how, file) in [("cached", Ok(&cached)), ("direct", direct.as_ref())] {
        for depth in DEPTHS {
            let path = &path;
            let ours = move |time| uring(file.map_err(|e| anyhow::anyhow!("{e}"))?, depth, time);
            measures.push((format!("io_uring, {how}, 4 KiB, depth {depth}"), Box::new(ours)));
            let fio = move |time| fio(path, how == "direct", depth, time);
            measures.push((format!("fio io_uring, {how}, 4 KiB, depth {depth}"), Box::new(fio)));
        }
    }
    Ok(rounds(measures, options))
}

/// Offsets without a pattern.
struct Offsets(u64);

impl Offsets {
    fn next(&mut self, length: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (BYTES / length) * length
    }
}

fn inline(file: &File, length: usize, flags: ReadWriteFlags, time: Duration) -> Result<Rate> {
    let mut buffer = vec![0; length];
    let mut offsets = Offsets(0x9E37_79B9_7F4A_7C15);
    let (watch, mut count) = (Stopwatch::start(), 0);
    while watch.runs(time) {
        for _ in 0..64 {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let read = rustix::io::preadv2(file, &mut parts, offsets.next(length as u64), flags)?;
            ensure!(read == length, "{read} bytes of {length}");
            count += 1;
        }
    }
    Ok(watch.rate(count))
}

fn uring(file: &File, depth: usize, time: Duration) -> Result<Rate> {
    let mut ring = IoUring::new(depth as u32)?;
    let mut buffers = PageBuffers::new(depth, BLOCK);
    let mut offsets = Offsets(0x9E37_79B9_7F4A_7C15);
    let mut idle: Vec<usize> = (0..depth).collect();
    let (watch, mut count) = (Stopwatch::start(), 0);
    while idle.len() < depth || watch.runs(time) {
        let running = watch.runs(time);
        while running && let Some(slot) = idle.pop() {
            let read = opcode::Read::new(Fd(file.as_raw_fd()), buffers.pointer(slot), BLOCK as u32)
                .offset(offsets.next(BLOCK as u64))
                .build()
                .user_data(slot as u64);
            super::sys::push(&mut ring, &read)?;
        }
        ring.submit_and_wait(1)?;
        for done in ring.completion() {
            ensure!(done.result() == BLOCK as i32, "a read gave {}", done.result());
            idle.push(done.user_data() as usize);
            count += 1;
        }
    }
    Ok(watch.rate(count))
}

/// What fio reads from the same file.
fn fio(path: &Path, direct: bool, depth: usize, time: Duration) -> Result<Rate> {
    let (outcome, cpu) = crate::fio::fio(
        path,
        Job { pattern: Pattern::Random, direct, block: BLOCK, depth, time, ramp: Duration::ZERO },
    )?;
    let operations = outcome.operations as f64;
    Ok(Rate { per_second: operations / outcome.seconds, cpu_nanoseconds: cpu * 1e9 / operations })
}
