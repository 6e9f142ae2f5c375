//! What is done with disks while they are served, beside serving them: taken away, resized, flushed; and their settings kept.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kagero_aoe::target::{AddressTaken, Answer, Settings};
use kagero_aoe::wire::{Address, SECTOR};

use crate::server::{Served, Source};
use crate::settings::Keeper;
use crate::{Error, Server};

/// How long the requests that a disk still has under way may take.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

impl Server {
    /// Keeps what clients set for the disks in `folder`, which must be this server's alone, and finds there what they have set before. Call it
    /// before the first disk is exported. Without, it is lost with the server.
    ///
    /// A client that sets something gets its answer when the file is written; when that can't be done, or is wanted more often than ten times a
    /// second, it gets none, as if the request had been lost, and asks again.
    ///
    /// # Errors
    /// No such folder, or it is another server's.
    pub fn keep_settings(&mut self, folder: &Path) -> Result<(), Error> {
        self.keeper = Mutex::new(Keeper::open(folder)?);
        Ok(())
    }

    /// Whether an answer may go out. One that confirms what a client has set goes out when that is kept.
    pub(crate) fn keeps_settings(&self, answer: &Answer) -> bool {
        if !answer.confirms_settings() {
            return true;
        }
        let mut keeper = self.keeper();
        let settings = self.settings(answer.address());
        settings.is_none_or(|settings| keeper.keep(answer.address(), &settings))
    }

    fn settings(&self, address: Address) -> Option<Settings> {
        self.target().export(address).map(|export| export.settings.clone())
    }

    /// Forgets what clients have set for a disk that was removed; while it is served, nothing happens.
    ///
    /// # Errors
    /// When the file can't be taken away.
    pub fn forget_settings(&self, address: Address) -> Result<(), Error> {
        let served = self.served();
        if served.contains_key(&address) { Ok(()) } else { self.keeper().forget(address) }
    }

    /// Serves the disk `address` no longer. Requests that it has under way are finished, what was written is flushed, and the image is free for
    /// others when this returns.
    ///
    /// # Errors
    /// When there is no such disk, or its last requests don't end.
    pub fn remove(&self, address: Address) -> Result<(), Error> {
        let removed = {
            let mut served = self.served_mut();
            let export = self.target().remove(address);
            export.inspect(|export| self.keeper().end(address, &export.settings));
            served.remove(&address)
        };
        let Served { source, stats } =
            alone(removed.ok_or(Error::NoExport(address))?).map_err(|_| Error::StillBusy(address))?;
        self.stats.absorb(stats.counters());
        source.flush().map_err(|_| Error::NotFlushed(address))
    }

    /// Makes the disk `address`, and a file that holds it, `to` bytes long; without `to`, takes notice of what its file or block device has now.
    /// Clients are told. Gives the new size in bytes.
    ///
    /// # Errors
    /// There is no such disk; its size can't change; it would become smaller, and it may not `shrink`.
    pub fn resize(&self, address: Address, to: Option<u64>, shrink: bool) -> Result<u64, Error> {
        let size = if shrink { self.shrink(address, to) } else { self.grow(address, to) }?;
        self.announce(address);
        Ok(size)
    }

    fn grow(&self, address: Address, to: Option<u64>) -> Result<u64, Error> {
        let served = self.served_mut();
        let disk = served.get(&address).ok_or(Error::NoExport(address))?;
        let size = disk.resize(address, to, false)?;
        if let Some(export) = self.target().export_mut(address) {
            export.resize(size / SECTOR as u64);
        }
        Ok(size)
    }

    /// While requests that were begun for the larger disk are finished, and until it is the smaller one, nobody reaches it: clients ask again, as
    /// after a frame that was lost. So none of them writes behind the new end and makes the file longer again.
    fn shrink(&self, address: Address, to: Option<u64>) -> Result<u64, Error> {
        let (disk, export) = {
            let mut served = self.served_mut();
            let disk = served.remove(&address).ok_or(Error::NoExport(address))?;
            (disk, self.target().remove(address))
        };
        let (disk, result) = match alone(disk) {
            Ok(disk) => {
                let result = disk.resize(address, to, true);
                (Arc::new(disk), result)
            }
            Err(disk) => (disk, Err(Error::Busy(address))),
        };
        let mut served = self.served_mut();
        if served.contains_key(&address) {
            return Err(AddressTaken(address).into());
        }
        if let Some(mut export) = export {
            if let Source::Shared(image) = &disk.source {
                // Also where that failed half-way.
                export.resize(image.size() / SECTOR as u64);
            }
            self.target().add(export)?;
            served.insert(address, disk);
        }
        result
    }

    /// Makes all that was written to any disk survive a loss of power, and keeps all settings: for the end.
    ///
    /// # Errors
    /// For the first disk where that fails.
    pub fn flush(&self) -> Result<(), Error> {
        let served = self.served();
        let mut result = Ok(());
        for (&address, disk) in served.iter() {
            let flushed = disk.source.flush();
            let kept = self.settings(address).is_none_or(|now| self.keeper().write(address, &now));
            if flushed.is_err() || !kept {
                result = result.and(Err(Error::NotFlushed(address)));
            }
        }
        result
    }
}

impl Served {
    fn resize(&self, address: Address, to: Option<u64>, shrink: bool) -> Result<u64, Error> {
        let Source::Shared(image) = &self.source else {
            let why = "what clients wrote lies over a base of this size";
            return Err(Error::FixedSize { address, why });
        };
        image.resize(address, to, shrink)?;
        Ok(image.size())
    }
}

/// Waits until the requests that a disk has under way are finished. Nobody else may find it any more.
fn alone(mut disk: Arc<Served>) -> Result<Served, Arc<Served>> {
    let deadline = Instant::now() + LAST_REQUESTS;
    loop {
        disk = match Arc::try_unwrap(disk) {
            Err(shared) if Instant::now() <= deadline => shared,
            settled => return settled,
        };
        std::thread::sleep(Duration::from_millis(1));
    }
}
