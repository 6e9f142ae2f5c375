//! What an image file is, without serving it.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::file::refused;
use crate::format::{SIGNATURE, Signature, signature};
use crate::overlay::OverlayInfo;
use crate::{Access, Error, Format, Image, lock};

/// More files than this in a chain are a mistake.
const LONGEST_CHAIN: usize = 64;

/// An image file.
#[derive(Clone, Debug)]
pub struct Info {
    /// Where it is.
    pub path: PathBuf,
    /// Its format: as for [`Format`], "overlay", or one that can't be served.
    pub format: String,
    /// The disk's size in bytes, if the format is known.
    pub size: Option<u64>,
    /// Bytes that the file takes on its file system; all of a block device.
    pub used: u64,
    /// What lies below it, from the top down.
    pub below: Vec<Below>,
    /// What more there is to an overlay.
    pub overlay: Option<OverlayInfo>,
    /// Who has it open and locked, as far as we may know: "process 1234 (kagero)".
    pub open_in: Option<String>,
}

/// A file that an image is based on.
#[derive(Clone, Debug)]
pub struct Below {
    /// Where it should be.
    pub path: PathBuf,
    /// Its format, or why that can't be told.
    pub format: Result<String, Why>,
}

/// Why the file below can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not there.
    NotThere,
    /// It can't be read.
    Unreadable,
    /// It is above already.
    Loop,
    /// It isn't what the overlay was made over; what differs.
    Changed(&'static str),
}

/// Looks at an image file, which may be in use.
///
/// # Errors
/// One line: there is no such image, it can't be read, or it is damaged.
pub fn info(path: &Path) -> Result<Info, Error> {
    let (mut file, begin) = open(path)?;
    let kernel = |source| Error::Kernel { path: path.into(), doing: "look at it", source };
    let metadata = file.metadata().map_err(kernel)?;
    let end = file.seek(SeekFrom::End(0)).map_err(kernel)?;
    let used = if metadata.is_file() { metadata.blocks() * 512 } else { end };
    let what = signature(&begin);
    let overlay = match what {
        Some(Signature::Overlay) => Some(OverlayInfo::read(&file, path)?),
        _ => None,
    };
    let size = match (what, &overlay) {
        (_, Some(overlay)) => Some(overlay.size),
        (None, _) => Some(end),
        (Some(Signature::Known(format)), _) => {
            Some(Image::open_as(path, Access::ReadOnly, Some(format))?.size())
        }
        (Some(_), _) => None,
    };
    let mut below = Vec::new();
    match &overlay {
        Some(overlay) => below.extend(overlay.base.as_deref().map(|base| under_overlay(base, overlay))),
        None => chain(path, &mut below),
    }
    let lowest = below.last().filter(|below| overlay.is_some() && below.format.is_ok());
    if let Some(base) = lowest.map(|below| below.path.clone()) {
        chain(&base, &mut below);
    }
    let open_in = lock::holder(&file);
    Ok(Info { path: path.into(), format: name(what), size, used, below, overlay, open_in })
}

fn name(what: Option<Signature>) -> String {
    what.map_or_else(|| Format::Raw.to_string(), Signature::name)
}

/// The file, opened to be read and not locked, and what it begins with.
pub(crate) fn open(path: &Path) -> Result<(File, [u8; SIGNATURE]), Error> {
    let not = |what| Error::NotAnImage { path: path.into(), what };
    let kind = path.metadata().map_err(|error| refused(path, error, "read"))?.file_type();
    if kind.is_dir() {
        return Err(not("a directory"));
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(not("neither"));
    }
    let file = File::open(path).map_err(|error| refused(path, error, "read"))?;
    let mut begin = [0; SIGNATURE];
    file.read_at(&mut begin, 0).map_err(|error| refused(path, error, "read"))?;
    Ok((file, begin))
}

/// An overlay's base.
fn under_overlay(path: &Path, overlay: &OverlayInfo) -> Below {
    let format = match open(path) {
        Err(Error::NoImage(_)) => Err(Why::NotThere),
        Err(_) => Err(Why::Unreadable),
        Ok((_, begin)) => {
            let format = match signature(&begin) {
                Some(Signature::Known(format)) => format,
                _ => Format::Raw,
            };
            match Image::open_as(path, Access::ReadOnly, Some(format)).map(|base| overlay.difference(&base)) {
                Ok(Ok(None)) => Ok(format.to_string()),
                // In the middle of a commit that is as it should be.
                Ok(Ok(Some(_))) if overlay.committing => Ok(format.to_string()),
                Ok(Ok(Some(what))) => Err(Why::Changed(what)),
                Ok(Err(_)) | Err(_) => Err(Why::Unreadable),
            }
        }
    };
    Below { path: path.into(), format }
}

/// Adds what the qcow2 image `path` is based on, and so on.
fn chain(path: &Path, below: &mut Vec<Below>) {
    let mut seen = vec![path.to_owned()];
    let mut next = backing(path);
    while let Some(path) = next {
        let (format, again) = match open(&path) {
            _ if seen.contains(&path) || seen.len() >= LONGEST_CHAIN => (Err(Why::Loop), None),
            Ok((_, begin)) => (Ok(name(signature(&begin))), backing(&path)),
            Err(Error::NoImage(_)) => (Err(Why::NotThere), None),
            Err(_) => (Err(Why::Unreadable), None),
        };
        seen.push(path.clone());
        below.push(Below { path, format });
        next = again;
    }
}

/// The backing file that a qcow2 header names (QEMU's docs/interop/qcow2: its place at byte 8, its length at 16).
fn backing(path: &Path) -> Option<PathBuf> {
    let (file, begin) = open(path).ok()?;
    if signature(&begin) != Some(Signature::Known(Format::Qcow2)) {
        return None;
    }
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).ok()?;
    let at = u64::from_be_bytes(header[8..16].try_into().ok()?);
    let length = u32::from_be_bytes(header[16..].try_into().ok()?);
    if at == 0 || !(1..=1_023).contains(&length) {
        return None;
    }
    let mut name = vec![0; length as usize];
    file.read_exact_at(&mut name, at).ok()?;
    let name = name.strip_prefix(b"file:").map(<[u8]>::to_vec).unwrap_or(name);
    let name = PathBuf::from(std::ffi::OsString::from_vec(name));
    Some(path.parent().unwrap_or(Path::new("")).join(name))
}
