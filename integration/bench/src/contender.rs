//! What takes part in a comparison: a server and its load generator, or fio.

use anyhow::{Result, anyhow};
use std::path::PathBuf;
use std::time::Duration;

use crate::fio::{Job, fio};
use crate::load::{Generator, Outcome, Pattern, RANDOM_SECTORS, Shape, Slice};
use crate::server::{Access, Bed, Kind, Resident, Server, client_interface};

/// The block size of fio's sequential reads.
const SEQUENTIAL_BLOCK: usize = 64 << 10;

/// Before each turn, in milliseconds, uncounted. A virtual machine's host learns only by and by how long to look out for work before a processor or a
/// disk sleeps, which makes all that wait for each other faster: with 100 ms, a server that came after fio did 0.74 of what fio does, and the
/// same one after itself 0.84; with 400 ms, 0.85 and 0.84.
const WARM_UP: u64 = 400;

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    how: How,
}

enum How {
    // The generator is dropped first: it reads from the server.
    Served { generator: Generator, server: Server },
    Fio { file: PathBuf, per_frame: usize },
}

impl Contender {
    /// Starts a server and its load generator.
    pub(crate) fn served(
        kind: Kind,
        name: &'static str,
        images: &[PathBuf],
        access: &Access,
        shape: Shape,
        bed: &Bed<'_>,
    ) -> Result<Self> {
        let server = Server::start(kind, name, images, access, bed)?;
        let generator = Generator::start(&bed.client, &client_interface(name), shape)?;
        Ok(Contender { name, how: How::Served { generator, server } })
    }

    /// fio, reading a file past the page cache, beside servers whose frames carry so many sectors.
    pub(crate) fn fio(file: PathBuf, per_frame: usize) -> Self {
        Contender { name: "fio", how: How::Fio { file, per_frame } }
    }

    /// Reads for a while: what came of it, and the processor seconds it took the server (or fio).
    pub(crate) fn read(&mut self, slice: Slice) -> Result<(Outcome, f64)> {
        match &mut self.how {
            How::Served { server, generator } => {
                let mut read = |server: &mut Server, slice| {
                    generator.read(slice).map_err(|error| {
                        let why = server.complaint().unwrap_or_default();
                        anyhow!("{}: {error:#} {why}", self.name)
                    })
                };
                read(server, Slice { milliseconds: WARM_UP, ..slice })?;
                let before = server.cpu_seconds()?;
                let outcome = read(server, slice)?;
                Ok((outcome, server.cpu_seconds()? - before))
            }
            How::Fio { file, per_frame } => fio(file, job(slice, *per_frame)),
        }
    }

    /// The server's memory.
    pub(crate) fn resident(&self) -> Result<Option<Resident>> {
        match &self.how {
            How::Served { server, .. } => server.resident().map(Some),
            How::Fio { .. } => Ok(None),
        }
    }
}

/// What fio does for a window of frames. Random reads are of the same size and as many at a time as the load generator has
/// outstanding. Sequential ones are what a local disk would be read with: blocks of 64 KiB, as many as the window holds, at
/// least one.
fn job(slice: Slice, per_frame: usize) -> Job {
    let random = RANDOM_SECTORS as usize;
    let (block, depth) = match slice.pattern {
        Pattern::Random => (random * 512, slice.window / random.div_ceil(per_frame)),
        Pattern::Sequential => (SEQUENTIAL_BLOCK, slice.window * per_frame * 512 / SEQUENTIAL_BLOCK),
    };
    let (time, ramp) = (Duration::from_millis(slice.milliseconds), Duration::from_millis(WARM_UP));
    Job { pattern: slice.pattern, direct: true, block, depth: depth.max(1), time, ramp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_reads_with_the_same_depth() {
        let of = |pattern, window, per_frame| {
            let job = job(Slice { pattern, window, milliseconds: 1 }, per_frame);
            (job.block, job.depth)
        };
        assert_eq!(of(Pattern::Random, 64, 17), (4096, 64));
        assert_eq!(of(Pattern::Random, 64, 2), (4096, 16), "four frames a read");
        assert_eq!(of(Pattern::Random, 1, 2), (4096, 1));
        assert_eq!(of(Pattern::Sequential, 64, 17), (65536, 8));
        assert_eq!(of(Pattern::Sequential, 1, 2), (65536, 1));
    }
}
