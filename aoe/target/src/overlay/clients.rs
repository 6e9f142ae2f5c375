//! One base image, and an overlay for each client that has written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::MacAddress;

use super::{Identity, Overlay, lock};
use crate::{Backend, Error, Image};

/// Station addresses cost a forger nothing, files and descriptors cost us something.
const MOST_CLIENTS: usize = 4_096;

/// A base image that nobody changes, and what each client has written over it, in `DIR/MAC.overlay`.
#[derive(Debug)]
pub struct Overlays {
    base: Arc<Image>,
    identity: Identity,
    folder: PathBuf,
    /// Written to only to add a client, and not while its file is made.
    clients: RwLock<HashMap<MacAddress, Arc<dyn Backend>>>,
    /// Held while an overlay is made.
    making: Mutex<()>,
    refused: Vec<(MacAddress, Error)>,
}

impl Overlays {
    /// Opens all overlays of `base` in `folder`. A client without one reads the base, and gets one with its first write.
    ///
    /// An overlay that is damaged, or can't be opened, stops nobody else: its client gets errors, and never the base. The log says so,
    /// and [`refused`](Self::refused).
    ///
    /// # Errors
    /// When there is no such folder, and where all is in question: an overlay was made over another base, or another state of it, is half
    /// committed, or is in use; the process has no file descriptor left.
    pub fn open(base: Image, folder: PathBuf) -> Result<Self, Error> {
        let kernel = |source| Error::Kernel { path: folder.clone(), doing: "list the overlays in", source };
        let identity = Identity::of(&base)?;
        let base = Arc::new(base);
        if !folder.is_dir() {
            return Err(Error::NoFolder(folder));
        }
        let mut clients: HashMap<MacAddress, Arc<dyn Backend>> = HashMap::new();
        let mut refused = Vec::new();
        for entry in folder.read_dir().map_err(kernel)? {
            let path = entry.map_err(kernel)?.path();
            if path.extension().is_none_or(|extension| extension != "overlay") {
                continue;
            }
            let Some(mac) = client_of(&path) else {
                tracing::warn!(path = %path.display(), "an overlay that is not named after a client's address is nobody's");
                continue;
            };
            match Overlay::open(&path, Arc::clone(&base), &identity) {
                Ok(overlay) => {
                    clients.insert(mac, Arc::new(overlay));
                }
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => {
                    tracing::error!("client {mac} gets nothing but errors: {error}");
                    clients.insert(mac, Arc::new(Refused { size: base.size() }));
                    refused.push((mac, error));
                }
            }
        }
        let (clients, making) = (RwLock::new(clients), Mutex::default());
        Ok(Overlays { base, identity, folder, clients, making, refused })
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

    /// Clients that get nothing but errors, and why.
    #[must_use]
    pub fn refused(&self) -> &[(MacAddress, Error)] {
        &self.refused
    }

    /// As [`Backend::flush`], for all clients but those that can't have written anything.
    ///
    /// # Errors
    /// As there, when one of them fails.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        let is_refused = |client: &MacAddress| self.refused.iter().any(|(refused, _)| refused == client);
        let overlays: Vec<_> = self
            .clients()
            .iter()
            .filter(|(client, _)| !is_refused(client))
            .map(|(_, o)| Arc::clone(o))
            .collect();
        overlays.iter().map(|overlay| overlay.flush()).fold(Ok(()), Result::and)
    }

    /// As [`Backend::rest`], for all of them.
    pub(crate) fn rest(&self) {
        self.base.backend().rest();
        self.clients().values().for_each(|overlay| overlay.rest());
    }

    fn clients(&self) -> RwLockReadGuard<'_, HashMap<MacAddress, Arc<dyn Backend>>> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client reads, if it has written.
    pub(crate) fn of(&self, client: MacAddress) -> Option<Arc<dyn Backend>> {
        self.clients().get(&client).map(Arc::clone)
    }

    /// What a client writes to.
    pub(crate) fn of_writer(&self, client: MacAddress) -> Result<Arc<dyn Backend>, Fault> {
        if let Some(overlay) = self.of(client) {
            return Ok(overlay);
        }
        let _making = lock(&self.making);
        // Somebody may have been faster.
        if let Some(overlay) = self.of(client) {
            return Ok(overlay);
        }
        if self.clients().len() >= MOST_CLIENTS {
            tracing::warn!(folder = %self.folder.display(), "too many overlays: no more clients may write");
            return Err(Fault::Aborted);
        }
        let path = self.folder.join(format!("{client}.overlay"));
        // It was made, and could not be opened, when there were no descriptors left, say.
        let make = if path.exists() { Overlay::open } else { Overlay::create };
        let overlay = make(&path, Arc::clone(&self.base), &self.identity).map_err(|error| {
            tracing::warn!(%error, "a client can't write");
            Fault::Aborted
        })?;
        let overlay: Arc<dyn Backend> = Arc::new(overlay);
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.insert(client, Arc::clone(&overlay));
        Ok(overlay)
    }
}

/// Whose overlay this is, by its name.
pub(super) fn client_of(path: &Path) -> Option<MacAddress> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Whether what is wrong with one overlay is a reason to serve nobody.
fn concerns_all(error: &Error) -> bool {
    match error {
        Error::OverlayBase { .. } | Error::OverlayCommitting(_) | Error::InUse { .. } => true,
        Error::Kernel { source, .. } => {
            matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        }
        _ => false,
    }
}

/// The disk of a client whose overlay can't be used.
#[derive(Debug)]
struct Refused {
    size: u64,
}

impl Backend for Refused {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault::Medium { done: 0 })
    }

    fn write(&self, _: u64, _: &[u8], _: bool) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn flush(&self) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn trim(&self, _: Range) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }
}
