//! The disks that are served, and what may be done with them while they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use kagero_aoe::target::{Admission, Export, Fault, Settings, Target};
use kagero_aoe::wire::{Address, MacAddress};
use kagero_devices::storage::Disk;

use crate::engine::{Letter, Mailbox, Workers};
use crate::stats::Stats;
use crate::{Access, Backend, Counters, Error, Image, Overlays, Place};

/// How long the requests that a removed disk still has under way may take.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// An AoE target for any number of disks on any number of links. [`serve`](Self::serve) does the work, in one thread or in several; disks may
/// come and go meanwhile.
///
/// Locks are taken in the order of the fields, each for moments only.
#[derive(Debug, Default)]
pub struct Server {
    /// What the protocol knows of the disks, and where their bytes are: the same disks in both.
    served: RwLock<BTreeMap<Address, Arc<Served>>>,
    target: Mutex<Target>,
    /// What belongs to no disk, and what was done for disks that were removed.
    pub(crate) stats: Stats,
    pub(crate) workers: Workers,
    /// Of the threads that serve.
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    /// Held by those of them that have something to do.
    awake: Arc<()>,
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

impl Source {
    /// What a client reads from.
    pub(crate) fn reader<T>(&self, client: MacAddress, act: impl FnOnce(&dyn Backend) -> T) -> T {
        match self {
            Source::Shared(image) => act(image.backend()),
            Source::Overlays(overlays) => match overlays.of(client) {
                Some(overlay) => act(&*overlay),
                None => act(overlays.base().backend()),
            },
        }
    }

    /// Where bytes that a client reads lie as they are, if they do.
    pub(crate) fn place_to_read(&self, client: MacAddress, offset: u64, length: usize) -> Option<Place> {
        self.reader(client, |image| image.place_to_read(offset, length))
    }

    /// Where a client's data may be written as it is, if it may.
    pub(crate) fn place_to_write(&self, client: MacAddress, offset: u64, data: &[u8]) -> Option<Place> {
        match self {
            Source::Shared(image) => image.backend().place_to_write(offset, data),
            Source::Overlays(overlays) => overlays.of(client)?.place_to_write(offset, data),
        }
    }

    /// As [`Backend::rest`].
    fn rest(&self) {
        match self {
            Source::Shared(image) => image.backend().rest(),
            Source::Overlays(overlays) => overlays.rest(),
        }
    }

    /// What a client writes to; made if it is its first write.
    ///
    /// # Errors
    /// Of `act`, or when there is no room for one more overlay.
    pub(crate) fn writer(
        &self,
        client: MacAddress,
        act: impl FnOnce(&dyn Backend) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self {
            Source::Shared(image) => act(image.backend()),
            Source::Overlays(overlays) => act(&*overlays.of_writer(client)?),
        }
    }

    /// What a client has written to before, if anything: nothing else is flushed or trimmed, least of all a base.
    ///
    /// # Errors
    /// Of `act`.
    pub(crate) fn written(
        &self,
        client: MacAddress,
        act: impl FnOnce(&dyn Backend) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self {
            Source::Shared(image) => act(image.backend()),
            Source::Overlays(overlays) => overlays.of(client).map_or(Ok(()), |overlay| act(&*overlay)),
        }
    }
}

/// One disk as it is now.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its address.
    pub address: Address,
    /// What clients see.
    pub disk: Disk,
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
    /// When two disks have one address.
    pub fn export_image(&self, address: Address, image: Image) -> Result<(), Error> {
        let mut export = Export::new(address, image.disk(address));
        export.read_only = image.access() == Access::ReadOnly;
        self.add(export, Source::Shared(image))
    }

    /// Serves a base image with overlays as the disk `address`, which every client may write to.
    ///
    /// # Errors
    /// When two disks have one address.
    pub fn export_overlays(&self, address: Address, overlays: Overlays) -> Result<(), Error> {
        let disk = crate::image::disk(overlays.base().size(), address, Access::ReadWrite);
        self.add(Export::new(address, disk), Source::Overlays(overlays))
    }

    /// Says who may reach the disk `address`. The links given to [`serve`](Self::serve) are counted from 0.
    pub fn admit(&self, address: Address, admission: Admission) {
        if let Some(export) = self.target().export_mut(address) {
            export.admission = admission;
        }
    }

    fn add(&self, export: Export, source: Source) -> Result<(), Error> {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let address = export.address;
        self.target().add(export)?;
        served.insert(address, Arc::new(Served { source, stats: Stats::default() }));
        drop(served);
        self.announce(address);
        Ok(())
    }

    /// Tells all stations of a disk that is new or has changed, so that who waits for it need not wait longer.
    pub(crate) fn announce(&self, address: Address) {
        for mailbox in self.mailboxes().iter().filter_map(Weak::upgrade) {
            mailbox.post(Letter::Announce(address));
        }
    }

    /// Adds the mailbox of a thread that serves, for as long as it is kept.
    pub(crate) fn register(&self, mailbox: &Arc<Mailbox>) {
        let mut mailboxes = self.mailboxes();
        mailboxes.retain(|other| other.strong_count() > 0);
        mailboxes.push(Arc::downgrade(mailbox));
    }

    fn mailboxes(&self) -> MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the disk `address` no longer. Requests that it has under way are finished, what was written is flushed, and the image is free for
    /// others when this returns.
    ///
    /// # Errors
    /// When there is no such disk, or its last requests don't end.
    pub fn remove(&self, address: Address) -> Result<(), Error> {
        let removed = {
            let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
            self.target().remove(address);
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

    /// All disks, in the order of their addresses.
    #[must_use]
    pub fn exports(&self) -> Vec<Status> {
        let served = self.served();
        let target = self.target();
        let status = |export: &Export| Status {
            address: export.address,
            disk: export.disk().clone(),
            read_only: export.read_only,
            settings: export.settings.clone(),
            counters: served.get(&export.address).map(|served| served.stats.counters()).unwrap_or_default(),
        };
        target.exports().iter().map(status).collect()
    }

    /// What it has done, disks that were removed included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut all = self.stats.counters();
        self.served().values().for_each(|served| all += served.stats.counters());
        all
    }

    /// What a thread holds while frames come to it.
    pub(crate) fn awake(&self) -> Arc<()> {
        Arc::clone(&self.awake)
    }

    /// A thread has had no frames for a while.
    pub(crate) fn rest(&self) {
        if Arc::strong_count(&self.awake) > 1 {
            return;
        }
        self.served().values().for_each(|served| served.source.rest());
    }

    pub(crate) fn served(&self) -> RwLockReadGuard<'_, BTreeMap<Address, Arc<Served>>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
