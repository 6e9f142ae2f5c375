//! The disks that are served, and what may be done with them while they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use kagero_aoe::target::{AddressTaken, Answer, Export, Settings, Target};
use kagero_aoe::wire::{Address, SECTOR};
use kagero_devices::storage::Disk;

use crate::settings::Keeper;
use crate::stats::Stats;
use crate::{Access, Counters, Error, Image, Overlays};

/// How long the requests that a removed disk still has under way may take.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// An AoE target for any number of disks on any number of links. [`serve`](Self::serve) does the work, in one thread or in several; disks may
/// come and go meanwhile.
///
/// Locks are taken in the order of the fields, each for moments only but for the keeper's.
#[derive(Debug, Default)]
pub struct Server {
    /// What the protocol knows of the disks, and where their bytes are: the same disks in both.
    served: RwLock<BTreeMap<Address, Arc<Served>>>,
    /// What survives a restart. Held while a file is written, which serving waits for only when a client sets something.
    keeper: Mutex<Keeper>,
    target: Mutex<Target>,
    /// What belongs to no disk, and what was done for disks that were removed.
    pub(crate) stats: Stats,
}

/// One disk: its bytes, and what was done with them.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) source: Source,
    pub(crate) stats: Stats,
}

/// Where the bytes of a disk come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// All clients share them.
    Shared(Image),
    /// Each client has its own.
    Overlays(Overlays),
}

/// One disk as it is now.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its address.
    pub address: Address,
    /// What clients see.
    pub disk: Disk,
    /// The image.
    pub image: PathBuf,
    /// Where each client's writes are, when the image is not written to.
    pub overlays: Option<PathBuf>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What clients have set.
    pub settings: Settings,
    /// What was done.
    pub counters: Counters,
}

impl Server {
    /// A server without disks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

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

    /// Serves the image at `path` as the disk `address`.
    ///
    /// # Errors
    /// As [`Image::open`]; also when two disks have one address.
    pub fn export(&self, address: Address, path: &Path, access: Access) -> Result<(), Error> {
        self.export_image(address, Image::open(path, access)?)
    }

    /// Serves an image as the disk `address`.
    ///
    /// # Errors
    /// When two disks have one address, or the settings that were kept for it are damaged.
    pub fn export_image(&self, address: Address, image: Image) -> Result<(), Error> {
        let mut export = Export::new(address, image.disk(address));
        export.read_only = image.access() == Access::ReadOnly;
        self.add(export, Source::Shared(image))
    }

    /// Serves a base image with overlays as the disk `address`, which every client may write to.
    ///
    /// # Errors
    /// As [`export_image`](Self::export_image).
    pub fn export_overlays(&self, address: Address, overlays: Overlays) -> Result<(), Error> {
        let disk = crate::image::disk(overlays.base().size(), address, Access::ReadWrite);
        self.add(Export::new(address, disk), Source::Overlays(overlays))
    }

    fn add(&self, mut export: Export, source: Source) -> Result<(), Error> {
        let address = export.address;
        {
            let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
            if served.contains_key(&address) {
                return Err(AddressTaken(address).into());
            }
            export.settings = self.keeper().begin(address)?;
            self.target().add(export)?;
            served.insert(address, Arc::new(Served { source, stats: Stats::default() }));
        }
        self.announce_disk(address);
        Ok(())
    }

    /// Tells the stations on all links that a disk is there, or has changed, so that they look at it again.
    fn announce_disk(&self, address: Address) {
        // TODO: hand it to the threads that serve; only they have links.
        let _ = address;
    }

    /// Serves the disk `address` no longer. Requests that it has under way are finished, what was written is flushed, and the image is free for
    /// others when this returns.
    ///
    /// # Errors
    /// When there is no such disk, or its last requests don't end.
    pub fn remove(&self, address: Address) -> Result<(), Error> {
        let removed = {
            let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
            let export = self.target().remove(address);
            export.inspect(|export| self.keeper().end(address, &export.settings));
            served.remove(&address)
        };
        let mut removed = removed.ok_or(Error::NoExport(address))?;
        let deadline = Instant::now() + LAST_REQUESTS;
        loop {
            removed = match Arc::try_unwrap(removed) {
                Ok(Served { source, stats }) => {
                    self.stats.absorb(stats.counters());
                    return match source {
                        Source::Shared(image) => image.flush().map_err(|_| Error::NotFlushed(address)),
                        // Each flushes when it is dropped.
                        Source::Overlays(_) => Ok(()),
                    };
                }
                Err(shared) if Instant::now() > deadline => {
                    drop(shared);
                    return Err(Error::StillBusy(address));
                }
                Err(shared) => shared,
            };
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes the disk `address`, and a file that holds it, `to` bytes long; without `to`, takes notice of what its file or block device has now.
    /// Clients are told. Gives the new size in bytes.
    ///
    /// # Errors
    /// There is no such disk; its size can't change; it would become smaller, and it may not `shrink`.
    pub fn resize(&self, address: Address, to: Option<u64>, shrink: bool) -> Result<u64, Error> {
        let size = {
            // No request is carried out meanwhile.
            let served = self.served.write().unwrap_or_else(PoisonError::into_inner);
            let disk = served.get(&address).ok_or(Error::NoExport(address))?;
            let Source::Shared(image) = &disk.source else {
                let why = "what clients wrote lies over a base of this size";
                return Err(Error::FixedSize { address, why });
            };
            let result = image.resize(address, to, shrink);
            if let Some(export) = self.target().export_mut(address) {
                export.resize(image.size() / SECTOR as u64);
            }
            result?;
            image.size()
        };
        self.announce_disk(address);
        Ok(size)
    }

    /// Makes all that was written to any disk survive a loss of power, and keeps all settings: for the end.
    ///
    /// # Errors
    /// For the first disk where that fails.
    pub fn flush(&self) -> Result<(), Error> {
        let served = self.served();
        let mut result = Ok(());
        for (&address, disk) in served.iter() {
            let flushed = match &disk.source {
                Source::Shared(image) => image.flush(),
                Source::Overlays(overlays) => overlays.flush(),
            };
            let kept = self.export_settings(address).is_none_or(|now| self.keeper().write(address, &now));
            if flushed.is_err() || !kept {
                result = result.and(Err(Error::NotFlushed(address)));
            }
        }
        result
    }

    /// Whether an answer may go out. One that confirms what a client has set goes out when that is kept.
    pub(crate) fn keeps_settings(&self, answer: &Answer) -> bool {
        if !answer.confirms_settings() {
            return true;
        }
        let mut keeper = self.keeper();
        let settings = self.export_settings(answer.address());
        settings.is_none_or(|settings| keeper.keep(answer.address(), &settings))
    }

    fn export_settings(&self, address: Address) -> Option<Settings> {
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

    /// All disks, in the order of their addresses.
    #[must_use]
    pub fn exports(&self) -> Vec<Status> {
        let served = self.served();
        let target = self.target();
        let status = |export: &Export| {
            let served = served.get(&export.address)?;
            let (image, overlays) = match &served.source {
                Source::Shared(image) => (image, None),
                Source::Overlays(overlays) => (overlays.base(), Some(overlays.folder().to_owned())),
            };
            Some(Status {
                address: export.address,
                disk: export.disk().clone(),
                image: image.path().to_owned(),
                overlays,
                read_only: export.read_only,
                settings: export.settings.clone(),
                counters: served.stats.counters(),
            })
        };
        target.exports().iter().filter_map(status).collect()
    }

    /// What it has done, disks that were removed included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut all = self.stats.counters();
        self.served().values().for_each(|served| all += served.stats.counters());
        all
    }

    pub(crate) fn served(&self) -> RwLockReadGuard<'_, BTreeMap<Address, Arc<Served>>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
