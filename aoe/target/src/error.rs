//! Why a disk can't be served, in one line that says what to do.

use std::io;
use std::path::PathBuf;

use kagero_aoe::target::AddressTaken;
use kagero_aoe::wire::Address;

use crate::{Format, NbdRefusal, NbdUri};

/// Why a disk can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("no disk image {0}: check the path")]
    NoImage(PathBuf),
    /// The path names something that holds no disk.
    #[error("disk image {path} is {what}: name a file or a block device")]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The file is empty.
    #[error("disk image {0} is empty: make it larger, say with `truncate -s 8G {0}`")]
    Empty(PathBuf),
    /// The file's size is not whole sectors.
    #[error(
        "disk image {path} has {size} bytes, not a multiple of 512: is it a disk image? If so, `truncate -s %512 {path}` fills it up"
    )]
    NotSectors {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file may not be opened so.
    #[error("no permission to {how} disk image {path}: change its mode or owner")]
    Permission {
        /// The path.
        path: PathBuf,
        /// "read" or "write".
        how: &'static str,
    },
    /// The file can't be written where it is.
    #[error(
        "disk image {0} is on a read-only file system: add `,read-only` to its name to use it so, or copy it"
    )]
    ReadOnly(PathBuf),
    /// Somebody else has it open for writing, or has it open and we want to write.
    #[error("disk image {path} is in use{}: end that first, or use a copy", by(.holder))]
    InUse {
        /// The path.
        path: PathBuf,
        /// Who that is, if it can be told.
        holder: Option<String>,
    },
    /// The file begins like another format than raw, and the user named none.
    #[error(
        "disk image {path} begins like a {format} image: add format={format} to serve the disk in it, or format=raw to serve the file byte for byte"
    )]
    FormatNotNamed {
        /// The path.
        path: PathBuf,
        /// What it looks like.
        format: Format,
    },
    /// The file begins like a format that can't be served.
    #[error(
        "disk image {path} begins like a {format} image, which can't be served: convert it with `qemu-img convert -O raw`, or add format=raw to serve the file byte for byte"
    )]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// What it looks like.
        format: &'static str,
    },
    /// The file is one client's overlay.
    #[error("{0} is an overlay: serve its base with overlay=DIRECTORY")]
    IsOverlay(PathBuf),
    /// An overlay can't be what it was.
    #[error("overlay {path} is damaged: {why}; take it away, and the client begins anew from the base")]
    OverlayDamaged {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An overlay means nothing over another base.
    #[error(
        "overlay {path} was made over another state of {base} ({what} differs): bring that back, or take the overlay away"
    )]
    OverlayBase {
        /// The overlay.
        path: PathBuf,
        /// The base.
        base: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A commit was killed on its way.
    #[error(
        "overlay {0} was being committed into its base, and that did not end: run the same `kagero image commit` again"
    )]
    OverlayCommitting(PathBuf),
    /// Other overlays would mean nothing after a commit.
    #[error(
        "overlay {path} is not the only one over this base: {other}{} would mean nothing afterwards; commit into a copy (`cp -p`) and rebase the others onto it, or add --force", and_more(*.more)
    )]
    OverlayNotAlone {
        /// The overlay.
        path: PathBuf,
        /// Another.
        other: PathBuf,
        /// And so many besides.
        more: usize,
    },
    /// A base of another size.
    #[error(
        "overlay {path} is of a disk with {size} bytes, and {base} has {other}: name a base of the same size"
    )]
    OverlaySize {
        /// The overlay.
        path: PathBuf,
        /// Its disk's size in bytes.
        size: u64,
        /// The base.
        base: PathBuf,
        /// The base's.
        other: u64,
    },
    /// A commit would make a raw base look like something else.
    #[error(
        "the disk of overlay {path} begins like a {format} image, and its base would, too: add format=raw to the base's name if that is meant"
    )]
    OverlayBeginsLike {
        /// The overlay.
        path: PathBuf,
        /// What it looks like.
        format: String,
    },
    /// Only a raw image can be written to.
    #[error(
        "disk image {path} is no raw image ({format}), and a commit can write to no other: convert it with `qemu-img convert -O raw`, and rebase the overlay onto that"
    )]
    NotRawBase {
        /// The base.
        path: PathBuf,
        /// Its format.
        format: String,
    },
    /// There is nowhere to keep overlays.
    #[error("no folder {0} for overlays: make it with `mkdir`")]
    NoFolder(PathBuf),
    /// The file is not of the format that the user named.
    #[error("disk image {path} is no {format} image: leave format={format} out, or check the path")]
    OtherFormat {
        /// The path.
        path: PathBuf,
        /// What was named.
        format: Format,
    },
    /// The format can be read only.
    #[error(
        "disk image {path}: {format} images are served read-only: add read-only, or overlay=DIRECTORY for writes"
    )]
    OnlyReadable {
        /// The path.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// The image is damaged or uses what we can't.
    #[error(
        "{format} image {path} can't be served: {why}; convert it with `qemu-img convert -O raw`, or check it with `qemu-img check`"
    )]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What is wrong, after "can't be served: ".
        why: String,
    },
    /// The image holds a part of a disk only.
    #[error(
        "vhdx image {0} holds only what differs from its parent: join them in Hyper-V, with `Convert-VHD` or `Merge-VHD`"
    )]
    Differencing(PathBuf),
    /// The file that an image is based on is not there.
    #[error(
        "disk image {path} has no backing file {backing}: put it there, or name another with `qemu-img rebase -u`"
    )]
    NoBacking {
        /// The image.
        path: PathBuf,
        /// The missing file.
        backing: PathBuf,
    },
    /// The image doesn't say which format its backing file has.
    #[error(
        "disk image {path} does not say the format of its backing file {backing}: tell it with `qemu-img rebase -u -F raw -b {backing} {path}` (or -F qcow2)"
    )]
    BackingNotNamed {
        /// The image.
        path: PathBuf,
        /// Its backing file.
        backing: PathBuf,
    },
    /// An NBD server's export can't be used.
    #[error("NBD export {uri}: {why}")]
    Nbd {
        /// The export.
        uri: NbdUri,
        /// Why.
        why: NbdRefusal,
    },
    /// The image can't be used past the page cache.
    #[error("disk image {path} can't be direct: {why}; leave `direct` out")]
    NotDirect {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Two disks can't have one address.
    #[error(transparent)]
    Address(#[from] AddressTaken),
    /// There is no such disk to remove or to change.
    #[error("no disk {0} is served: `kagero target list` shows those that are")]
    NoExport(Address),
    /// A disk was removed while its requests didn't end.
    #[error("disk {0} is not served any more, but its last requests still wait for its storage: look there")]
    StillBusy(Address),
    /// A disk was removed, and the last flush failed.
    #[error("disk {0} is not served any more, but what was written may be lost: its last flush failed")]
    NotFlushed(Address),
    /// The size of a disk can't change while it is served.
    #[error("disk {address} can't be resized while it is served: {why}")]
    FixedSize {
        /// The disk.
        address: Address,
        /// Why, and what can be done.
        why: &'static str,
    },
    /// A disk would lose its end, and nobody said that it may.
    #[error(
        "disk {address} would shrink from {from} to {to} bytes: add --shrink if what lies behind may be lost"
    )]
    Shrinks {
        /// The disk.
        address: Address,
        /// Its size.
        from: u64,
        /// What was asked for.
        to: u64,
    },
    /// A disk can't shrink while its requests don't end.
    #[error("disk {0} can't shrink now: requests still wait for its storage: look there")]
    Busy(Address),
    /// No disk has this size.
    #[error("a disk of {0} bytes can't be: give a multiple of 512, up to 128 PiB")]
    NoSize(u64),
    /// A block device has no more.
    #[error("block device {path} has {size} bytes: make it larger first, say with `lvextend`")]
    DeviceSize {
        /// The path.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// There is nowhere to keep what clients set.
    #[error("no folder {0} for the settings of clients: make it with `mkdir`, or name another with --state")]
    NoStateFolder(PathBuf),
    /// Two servers would write the same files.
    #[error("folder {0} for the settings of clients is another server's: give each its own with --state")]
    StateFolderInUse(PathBuf),
    /// What clients have set can't be known.
    #[error(
        "settings of clients in {path} are damaged: {why}; mend the file, or take it away to begin without any"
    )]
    SettingsDamaged {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Any other refusal by the kernel.
    #[error("disk image {path}: cannot {doing}: {source}")]
    Kernel {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}
