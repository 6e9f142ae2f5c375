//! One base image, and an overlay for each client that has written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kagero_aoe::target::Fault;
use kagero_aoe::wire::MacAddress;

use super::{Identity, Overlay};
use crate::{Backend, Error, Image};

/// Station addresses cost a forger nothing, files and descriptors cost us something.
const MOST_CLIENTS: usize = 4_096;

/// A base image that nobody changes, and what each client has written over it, in `DIR/MAC.overlay`.
#[derive(Debug)]
pub struct Overlays {
    base: Arc<Image>,
    identity: Identity,
    folder: PathBuf,
    clients: Mutex<BTreeMap<MacAddress, Arc<Overlay>>>,
}

impl Overlays {
    /// Opens all overlays of `base` in `folder`. A client without one reads the base, and gets one with its first write.
    ///
    /// # Errors
    /// As [`Overlay::open`], for any of them; when there is no such folder.
    pub fn open(base: Image, folder: PathBuf) -> Result<Self, Error> {
        let kernel = |source| Error::Kernel { path: folder.clone(), doing: "list the overlays in", source };
        let identity = Identity::of(&base)?;
        let base = Arc::new(base);
        if !folder.is_dir() {
            return Err(Error::NoFolder(folder));
        }
        let mut clients = BTreeMap::new();
        for entry in folder.read_dir().map_err(kernel)? {
            let path = entry.map_err(kernel)?.path();
            if path.extension().is_some_and(|extension| extension == "overlay")
                && let Some(mac) = path.file_stem().and_then(|name| name.to_str()?.parse().ok())
            {
                clients.insert(mac, Arc::new(Overlay::open(&path, Arc::clone(&base), &identity)?));
            }
        }
        Ok(Overlays { base, identity, folder, clients: Mutex::new(clients) })
    }

    /// The image below.
    #[must_use]
    pub fn base(&self) -> &Image {
        &self.base
    }

    /// Where the overlays are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// As [`Backend::flush`], for all clients.
    ///
    /// # Errors
    /// As there, when one of them fails.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        let clients: Vec<_> =
            self.clients.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        clients.iter().map(|overlay| overlay.flush()).fold(Ok(()), Result::and)
    }

    /// What a client reads, if it has written.
    pub(crate) fn of(&self, client: MacAddress) -> Option<Arc<Overlay>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&client).map(Arc::clone)
    }

    /// What a client writes to.
    pub(crate) fn of_writer(&self, client: MacAddress) -> Result<Arc<Overlay>, Fault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(overlay) = clients.get(&client) {
            return Ok(Arc::clone(overlay));
        }
        if clients.len() >= MOST_CLIENTS {
            tracing::warn!(folder = %self.folder.display(), "too many overlays: no more clients may write");
            return Err(Fault::Aborted);
        }
        let path = self.folder.join(format!("{client}.overlay"));
        match Overlay::create(&path, Arc::clone(&self.base), &self.identity) {
            Ok(overlay) => {
                let overlay = Arc::new(overlay);
                clients.insert(client, Arc::clone(&overlay));
                Ok(overlay)
            }
            Err(error) => {
                tracing::warn!(%error, "a client can't write");
                Err(Fault::Aborted)
            }
        }
    }
}
