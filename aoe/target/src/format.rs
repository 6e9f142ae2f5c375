//! Which format an image file has.
//!
//! What the file begins with tells, and not its name. But a guest writes the first bytes of a raw image, and so could make it look like any
//! format on the next start; a qcow2 header may name any file of this machine as its backing file, for the guest to read. So a file that
//! begins like another format is served in it only when the user says so.

use std::fmt;
use std::str::FromStr;

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Sectors one after another.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3. Read only.
    Qcow2,
    /// Hyper-V's format. Read only.
    Vhdx,
}

impl Format {
    /// All of them, by name.
    pub const NAMES: [(&str, Self); 3] = [("raw", Self::Raw), ("qcow2", Self::Qcow2), ("vhdx", Self::Vhdx)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
        })
    }
}

/// There is no format with this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such image format: known are raw, qcow2 and vhdx")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|&(_, format)| format).ok_or(UnknownFormat)
    }
}

/// What a file that is not raw begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    /// A format that can be served.
    Known(Format),
    /// One that can't, by name.
    Other(&'static str),
    /// An overlay of ours.
    Overlay,
}

impl Signature {
    /// What people call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Known(format) => format.to_string(),
            Self::Other(name) => name.into(),
            Self::Overlay => "overlay".into(),
        }
    }
}

/// Enough of a file to know its format.
pub(crate) const SIGNATURE: usize = 8;

/// Whether a file that begins so looks like no format but raw.
#[must_use]
pub fn looks_raw(begin: &[u8]) -> bool {
    signature(begin).is_none()
}

/// What the file that begins so is; `None` for raw.
pub(crate) fn signature(begin: &[u8]) -> Option<Signature> {
    let known: [(&[u8], Signature); 6] = [
        (b"QFI\xfb", Signature::Known(Format::Qcow2)),
        (b"vhdxfile", Signature::Known(Format::Vhdx)),
        (b"conectix", Signature::Other("VHD")),
        (b"KDMV", Signature::Other("VMDK")),
        (b"QED\0", Signature::Other("QED")),
        (crate::overlay::MAGIC, Signature::Overlay),
    ];
    known.iter().find(|(magic, _)| begin.starts_with(magic)).map(|&(_, signature)| signature)
}
