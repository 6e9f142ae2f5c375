//! qcow2 images, read only, through the library imago.
//!
//! We open each file of a backing chain ourselves, locked as any image, and leave the library no path to open. Should it panic about what
//! it reads, that is an error of one request: the other exports of this process are not to suffer.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess};
use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::SECTOR;

use crate::file::ImageFile;
use crate::format::{Signature, signature};
use crate::{Access, Backend, Error, Format};

/// Where the header says how the data is encrypted: 0 for not at all.
const CRYPT_METHOD: u64 = 32;

/// More files than this in a chain are a mistake.
const LONGEST_CHAIN: usize = 64;

/// An image and what it is based on.
#[derive(Debug)]
struct Chain<S: imago::Storage + 'static> {
    /// The library's own view of the files below.
    image: FormatAccess<S>,
    /// Keeps the locks; the image first.
    files: Vec<ImageFile>,
}

/// Opens the image in this file.
pub(crate) fn open(file: ImageFile, access: Access) -> Result<Box<dyn Backend>, Error> {
    if access == Access::ReadWrite {
        return Err(Error::OnlyReadable { path: file.path().into(), format: Format::Qcow2 });
    }
    let mut files = Vec::new();
    let image = layer(file, Format::Qcow2, &mut files)?;
    let size = image.size();
    let path = files.first().map(|file| file.path().to_owned()).unwrap_or_default();
    if size == 0 || !size.is_multiple_of(SECTOR as u64) {
        return Err(unusable(&path, Format::Qcow2, format!("holds a disk of {size} bytes")));
    }
    Ok(Box::new(Chain { image, files }))
}

/// Opens one file of a chain and all below it.
fn layer(
    file: ImageFile,
    format: Format,
    above: &mut Vec<ImageFile>,
) -> Result<FormatAccess<Storage>, Error> {
    let path = file.path().to_owned();
    let unusable = |why: String| unusable(&path, format, why);
    let identity = |file: &ImageFile| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let this = identity(&file).map_err(|error| file.kernel("look at it", error))?;
    if above.len() >= LONGEST_CHAIN
        || above.iter().any(|file| identity(file).is_ok_and(|other| other == this))
    {
        return Err(unusable("is its own backing file, by a loop in the chain".into()));
    }
    let storage: Storage =
        file.try_clone().and_then(Storage::try_from).map_err(|error| file.kernel("open it", error))?;
    if format == Format::Raw {
        above.push(file);
        let raw = guarded(|| Raw::open_image(storage, false)).map_err(|error| unusable(error.to_string()))?;
        return Ok(FormatAccess::new(raw));
    }
    if signature(&file.begin()?) != Some(Signature::Known(Format::Qcow2)) {
        return Err(Error::OtherFormat { path, format });
    }
    let mut method = [0; 4];
    file.read_exact_at(&mut method, CRYPT_METHOD).map_err(|error| file.kernel("read it", error))?;
    if method != [0; 4] {
        return Err(unusable("is encrypted".into()));
    }
    let mut image = guarded(|| Qcow2::<Storage>::open_image(storage, false))
        .map_err(|error| unusable(error.to_string()))?;
    if image.requires_external_data_file() {
        return Err(unusable("has its data in another file".into()));
    }
    image.set_data_file(None);
    above.push(file);
    let backing = match image.implicit_backing_file() {
        None => None,
        Some(name) => {
            let name = name.strip_prefix("file:").unwrap_or(name);
            // Beside the file that names it.
            let below = path.parent().unwrap_or(Path::new("")).join(name);
            let format = match image.implicit_backing_format().map(|format| format.parse::<Format>()) {
                Some(Ok(format @ (Format::Raw | Format::Qcow2))) => format,
                Some(_) => {
                    return Err(unusable(format!("has a backing file of another format, {name}")));
                }
                // Not guessed: see the module `format`.
                None => return Err(Error::BackingNotNamed { path, backing: below }),
            };
            let file = ImageFile::open(&below, false).map_err(|error| match error {
                Error::NoImage(backing) => Error::NoBacking { path: path.clone(), backing },
                other => other,
            })?;
            Some(layer(file, format, above)?)
        }
    };
    image.set_backing(backing);
    guarded(|| image.open_implicit_dependencies_gated(DenyImplicitOpenGate::default()))
        .map_err(|error| unusable(error.to_string()))?;
    Ok(FormatAccess::new(image))
}

fn unusable(path: &Path, format: Format, why: String) -> Error {
    Error::Unusable { path: PathBuf::from(path), format, why: why.replace('\n', " ") }
}

/// Calls the library, and makes a panic of it an error.
///
/// What it leaves behind then is fit for use: its locks are released, and its caches have what they had.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Err(io::Error::other(format!("a panic in imago: {text}")))
    })
}

impl<S: imago::Storage + 'static> Backend for Chain<S> {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        guarded(|| self.image.read(&mut *out, offset)).map_err(|error| {
            let path = self.files.first().map(ImageFile::path).unwrap_or(Path::new(""));
            tracing::warn!(path = %path.display(), %error, "read failed");
            // Which sector it was, the library doesn't say.
            Fault::Medium { done: 0 }
        })
    }

    fn write(&self, _: u64, _: &[u8], _: bool) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn trim(&self, _: Range) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }
}

#[cfg(test)]
mod tests;
