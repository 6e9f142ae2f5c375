//! What can be known to be wrong before anything is begun.
//!
//! Nothing is created or opened here. What only opening can show (an image in use by another writer, the state of an interface) is said
//! by whoever opens it, in the same form of error.

use std::fs::{self, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use kagero_target::{Format, Location, NbdUri, looks_raw};

use super::outputs::{self, Output, numbered};
use super::units::grouped;
use super::{
    Boot, ConsoleSink, DiscoverConfig, Export, MAX_DISKS, Place, RunConfig, ServeConfig, Size, Source,
    TraceSink,
};
use crate::error::UserError;
use crate::passthrough::Choice;

const MIN_MEMORY: Size = Size::mib(16);
const MAX_MEMORY: Size = Size::mib(1 << 20);
const MAX_CPUS: u8 = 16;

impl RunConfig {
    /// Says what can't be done, before anything is begun.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), UserError> {
        self.check_disks()?;
        self.check_machine()?;
        self.check_boot()?;
        self.check_passthrough()?;
        if self.expect.as_deref() == Some("") {
            return Err(UserError::new(
                "--expect",
                "an empty text is always there",
                "give the text to wait for",
            ));
        }
        outputs::check(self.outputs(), &self.inputs())
    }

    fn check_disks(&self) -> Result<(), UserError> {
        if self.disks.len() > MAX_DISKS {
            return Err(UserError::new(
                "--disk",
                format!("{} disks are too many", self.disks.len()),
                "a machine has room for four, two on each IDE channel",
            ));
        }
        let mut images = Vec::new();
        for (i, disk) in self.disks.iter().enumerate() {
            let before = &self.disks[..i];
            if let Some(other) = before.iter().find(|other| other.position == disk.position) {
                return Err(UserError::new(
                    &disk.source,
                    format!("position {} is taken by {}", disk.position, other.source),
                    "give each disk a position of its own, 0 to 3",
                ));
            }
            match &disk.source {
                Source::Aoe { address, interface } => {
                    check_interface(interface)?;
                    let same =
                        |other: &Source| matches!(other, Source::Aoe { address: a, .. } if a == address);
                    if before.iter().any(|other| same(&other.source)) {
                        return Err(UserError::new(
                            &disk.source,
                            "two disks have this address",
                            "give each disk a target of its own",
                        ));
                    }
                }
                Source::File(path) => {
                    let identity = check_image(path, disk.format)?;
                    if images.contains(&identity) {
                        return Err(UserError::new(
                            path.display(),
                            "two disks are this image",
                            "give each disk an image of its own",
                        ));
                    }
                    images.push(identity);
                }
            }
        }
        Ok(())
    }

    fn check_machine(&self) -> Result<(), UserError> {
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return Err(UserError::new(
                "--cpus",
                format!("a machine with {} CPUs can't be made", self.cpus),
                format!("give 1 to {MAX_CPUS}"),
            ));
        }
        if self.memory < MIN_MEMORY || self.memory > MAX_MEMORY {
            let what = if self.memory < MIN_MEMORY { "too little" } else { "too much" };
            return Err(UserError::new(
                "--memory",
                format!("{} is {what}", self.memory),
                format!("give {MIN_MEMORY} to {MAX_MEMORY}"),
            ));
        }
        if !self.memory.bytes().is_multiple_of(Size::mib(1).bytes()) {
            return Err(UserError::new(
                "--memory",
                format!("{} is not a whole number of MiB", self.memory),
                "round it, as 512M",
            ));
        }
        Ok(())
    }

    fn check_boot(&self) -> Result<(), UserError> {
        match &self.boot {
            Boot::Firmware(path) => {
                check_input("firmware image", path)?;
                if self.disks.is_empty() {
                    return Err(UserError::new(
                        "--disk",
                        "there is nothing to boot from",
                        "give a disk with --disk, or a kernel with --kernel",
                    ));
                }
            }
            Boot::Kernel { image, initrd, command_line: _ } => {
                check_input("kernel", image)?;
                initrd.as_deref().map_or(Ok(()), |initrd| check_input("initial RAM disk", initrd))?;
            }
        }
        Ok(())
    }

    fn check_passthrough(&self) -> Result<(), UserError> {
        if self.bind && self.passthrough.is_empty() {
            return Err(UserError::new(
                "--bind",
                "there is nothing that it is for",
                "add --passthrough, or leave it out",
            ));
        }
        for (i, choice) in self.passthrough.iter().enumerate() {
            if self.passthrough[..i].contains(choice) {
                return Err(UserError::new(
                    "--passthrough",
                    format!("{choice} is there twice"),
                    "name it once",
                ));
            }
        }
        if self.passthrough.len() > 1 && self.passthrough.contains(&Choice::All) {
            return Err(UserError::new(
                "--passthrough",
                "all has the others in it",
                "give all, or name each",
            ));
        }
        Ok(())
    }

    /// Every file that the run will write.
    fn outputs(&self) -> impl Iterator<Item = Output<'_>> {
        let console = match &self.console {
            ConsoleSink::File(path) => Some(path),
            ConsoleSink::Stdio | ConsoleSink::None => None,
        };
        let trace = match self.trace.as_ref().map(|trace| &trace.sink) {
            Some(TraceSink::File(path)) => Some(path),
            Some(TraceSink::Stderr) | None => None,
        };
        [
            ("--console", console),
            ("--report", self.report.as_ref()),
            ("--trace", trace),
            ("--pcap", self.pcap.as_ref()),
            ("--firmware-log", self.firmware_log.as_ref()),
        ]
        .into_iter()
        .filter_map(|(option, path)| Some(Output { option, path: path? }))
    }

    /// Every file that the run will read.
    fn inputs(&self) -> Vec<&Path> {
        let images = self.disks.iter().filter_map(|disk| match &disk.source {
            Source::File(path) => Some(path.as_path()),
            Source::Aoe { .. } => None,
        });
        let boot = match &self.boot {
            Boot::Firmware(path) => [Some(path.as_path()), None],
            Boot::Kernel { image, initrd, .. } => [Some(image.as_path()), initrd.as_deref()],
        };
        images.chain(boot.into_iter().flatten()).collect()
    }
}

impl ServeConfig {
    /// Says what can't be done, before anything is begun.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), UserError> {
        for (i, name) in self.interfaces.iter().enumerate() {
            check_interface(name)?;
            if self.interfaces[..i].contains(name) {
                return Err(UserError::new("--interface", format!("{name} is there twice"), "name it once"));
            }
        }
        // With a socket of its own, it can get some later.
        if self.exports.is_empty() && !matches!(self.control, Place::At(_)) {
            return Err(UserError::new(
                "serve",
                "there is nothing to serve",
                "name an export, as 7.1=debian.img",
            ));
        }
        if let Some(threads) = self.threads
            && threads.get() > 64
        {
            let problem = format!("{threads} threads are more than any machine's interfaces can use");
            return Err(UserError::new("--threads", problem, "give 64 or less, or leave it out"));
        }
        if self.pcap.is_some() && self.threads.is_some_and(|threads| threads.get() > 1) {
            let problem = "a capture has its frames in order only from one thread";
            return Err(UserError::new("--pcap", problem, "leave out --threads, or the capture"));
        }
        let mut images: Vec<(Identity<'_>, bool)> = Vec::new();
        for (i, export) in self.exports.iter().enumerate() {
            if self.exports[..i].iter().any(|other| other.address == export.address) {
                return Err(UserError::new(
                    export.address,
                    "two exports have this address",
                    "give each export an address of its own",
                ));
            }
            export.admission(&self.interfaces)?;
            let identity = export.identity()?;
            let unwritten = export.read_only || export.overlay.is_some();
            if images.iter().any(|&(other, same)| other == identity && !(same && unwritten)) {
                return Err(UserError::new(
                    &export.image,
                    "two exports are this image",
                    "give each export an image of its own, or make both read-only",
                ));
            }
            images.push((identity, unwritten));
        }
        let pcap = self.pcap.iter().flat_map(|path| (0..self.interfaces.len()).map(|i| numbered(path, i)));
        let pcap: Vec<_> = pcap.collect();
        let pcap = pcap.iter().map(|path| Output { option: "--pcap", path });
        let images: Vec<_> = self.exports.iter().filter_map(|export| export.image.path()).collect();
        outputs::check(pcap, &images)
    }
}

impl Export {
    /// Says what can't be done with this export alone.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), UserError> {
        self.identity().map(|_| ())
    }

    /// Checks the image and gives what tells it from all others.
    fn identity(&self) -> Result<Identity<'_>, UserError> {
        Ok(match &self.image {
            Location::File(path) => Identity::File(check_image(path, self.format)?),
            Location::Nbd(uri) => Identity::Nbd(uri),
        })
    }
}

impl DiscoverConfig {
    /// Says what can't be done, before anything is begun.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), UserError> {
        check_interface(&self.interface)
    }
}

/// Checks a name as the kernel would: what no interface can be called is refused before anyone asks for it. `tap:NAME` names a tap.
fn check_interface(name: &str) -> Result<(), UserError> {
    let own = name.strip_prefix("tap:").unwrap_or(name);
    let bad = own.is_empty()
        || own.len() > 15
        || own == "."
        || own == ".."
        || own.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if bad {
        return Err(UserError::new(
            "--interface",
            format!("\"{name}\" can't be an interface's name"),
            "`ip -brief link` lists the interfaces",
        ));
    }
    Ok(())
}

/// What tells an image from all others.
#[derive(Clone, Copy, PartialEq)]
enum Identity<'a> {
    /// The device and inode.
    File((u64, u64)),
    /// One export may have other names too, which only its server knows.
    Nbd(&'a NbdUri),
}

/// Checks a disk image and gives what tells it from all others: its device and inode.
fn check_image(path: &Path, format: Option<Format>) -> Result<(u64, u64), UserError> {
    let meta = metadata("image", path)?;
    if !meta.is_file() && !meta.file_type().is_block_device() {
        return Err(UserError::new(
            path.display(),
            "neither a file nor a block device",
            "give the path of a disk image",
        ));
    }
    let bytes = if meta.is_file() { meta.len() } else { block_device_bytes(path)? };
    if bytes == 0 {
        return Err(UserError::new(
            path.display(),
            "the image is empty",
            "`truncate -s 8G FILE` gives it a size",
        ));
    }
    let raw = match format {
        Some(format) => format == Format::Raw,
        None => begins_raw(path),
    };
    if bytes % 512 != 0 && raw {
        return Err(UserError::new(
            path.display(),
            format!("not a multiple of 512 bytes ({})", grouped(bytes)),
            "if it is a raw disk image, `truncate -s %512 FILE` fills up its last sector",
        ));
    }
    // Two names of a block device are two inodes, one device number.
    Ok(if meta.is_file() { (meta.dev(), meta.ino()) } else { (u64::MAX, meta.rdev()) })
}

/// Whether a file looks like plain sectors. What can't be read is whoever opens it to tell.
fn begins_raw(path: &Path) -> bool {
    let mut begin = [0; 512];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut begin));
    read.is_ok_and(|length| looks_raw(&begin[..length]))
}

fn block_device_bytes(path: &Path) -> Result<u64, UserError> {
    fs::File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(|error| {
        UserError::new(
            path.display(),
            format!("can't open the block device: {error}"),
            "check its permissions",
        )
    })
}

fn check_input(what: &str, path: &Path) -> Result<(), UserError> {
    if metadata(what, path)?.len() == 0 {
        return Err(UserError::new(path.display(), format!("the {what} is empty"), "check the path"));
    }
    Ok(())
}

fn metadata(what: &str, path: &Path) -> Result<Metadata, UserError> {
    let meta = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            UserError::new(path.display(), format!("no such {what}"), "check the path")
        }
        ErrorKind::PermissionDenied => UserError::new(
            path.display(),
            format!("no permission to reach the {what}"),
            "check its folder's mode",
        ),
        _ => UserError::new(path.display(), error, "check the path"),
    })?;
    if meta.is_dir() {
        return Err(UserError::new(
            path.display(),
            "a directory",
            format!("give the path of the {what} itself"),
        ));
    }
    Ok(meta)
}
