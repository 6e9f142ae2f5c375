//! The disks that are served, and what may be done with them while they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use kagero_aoe::target::{AddressTaken, Admission, Export, Fault, Settings, Target};
use kagero_aoe::wire::{Address, MacAddress};
use kagero_devices::storage::Disk;

use crate::engine::{Letter, Mailbox, Workers};
use crate::settings::Keeper;
use crate::stats::Stats;
use crate::{Access, Backend, Counters, Error, Image, Overlays, Place};

/// An AoE target for any number of disks on any number of links. [`serve`](Self::serve) does the work, in one thread or in several; disks may
/// come and go meanwhile.
///
/// Locks are taken in the order of the fields, each for moments only but for the keeper's.
#[derive(Debug, Default)]
pub struct Server {
    /// What the protocol knows of the disks, and where their bytes are: the same disks in both.
    served: RwLock<BTreeMap<Address, Arc<Served>>>,
    /// What survives a restart. Held while a file is written, which serving waits for only when a client sets something.
    pub(crate) keeper: Mutex<Keeper>,
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

impl Served {
    /// Requests for it that are not carried out yet, of all threads: each of them holds it.
    pub(crate) fn under_way(served: &Arc<Self>) -> usize {
        Arc::strong_count(served) - 1
    }
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

    /// As [`Backend::flush`], for all clients.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        match self {
            Source::Shared(image) => image.flush(),
            Source::Overlays(overlays) => overlays.flush(),
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
        self.export_image_to(Admission::default(), address, image)
    }

    /// As [`export_image`](Self::export_image), for those alone that are admitted. The links given to [`serve`](Self::serve) are counted from 0.
    ///
    /// # Errors
    /// As there.
    pub fn export_image_to(&self, admission: Admission, address: Address, image: Image) -> Result<(), Error> {
        let mut export = Export::new(address, image.disk(address));
        export.read_only = image.access() == Access::ReadOnly;
        export.admission = admission;
        self.add(export, Source::Shared(image))
    }

    /// Serves a base image with overlays as the disk `address`, which every client may write to.
    ///
    /// # Errors
    /// As [`export_image`](Self::export_image).
    pub fn export_overlays(&self, address: Address, overlays: Overlays) -> Result<(), Error> {
        self.export_overlays_to(Admission::default(), address, overlays)
    }

    /// As [`export_overlays`](Self::export_overlays), for those alone that are admitted.
    ///
    /// # Errors
    /// As there.
    pub fn export_overlays_to(
        &self,
        admission: Admission,
        address: Address,
        overlays: Overlays,
    ) -> Result<(), Error> {
        let disk = crate::image::disk(overlays.base().size(), address, Access::ReadWrite);
        let mut export = Export::new(address, disk);
        export.admission = admission;
        self.add(export, Source::Overlays(overlays))
    }

    fn add(&self, mut export: Export, source: Source) -> Result<(), Error> {
        let address = export.address;
        {
            let mut served = self.served_mut();
            if served.contains_key(&address) {
                return Err(AddressTaken(address).into());
            }
            export.settings = self.keeper().begin(address)?;
            self.target().add(export)?;
            served.insert(address, Arc::new(Served { source, stats: Stats::default() }));
        }
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

    pub(crate) fn served_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Address, Arc<Served>>> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
