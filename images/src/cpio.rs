//! Writes a cpio archive in the "newc" form, which the Linux kernel unpacks as an initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Written here and not with cpio(1), so that
//! no tree has to be laid out in the file system first and device nodes need no root.

use std::io::{self, Write};

/// What an archive member is; the file type bits of its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file and its contents.
    File(&'a [u8]),
    /// A symbolic link and what it points to.
    Symlink(&'a str),
    /// A character device: major, minor.
    CharDevice(u32, u32),
}

/// An archive being written. [`Writer::finish`] writes the trailer.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Writer { out, inode: 0 }
    }

    /// Appends a member. `path` has no leading slash; its directories must have been appended before.
    /// `permissions` are the lower twelve mode bits. Owner is root, time is zero: the same input gives the
    /// same bytes.
    ///
    /// # Errors
    /// Those of the writer, and contents of 4 GiB or more, which the format can't hold.
    pub fn append(&mut self, path: &str, permissions: u32, kind: Kind<'_>) -> io::Result<()> {
        self.inode += 1;
        let (file_type, data, device) = match kind {
            Kind::Directory => (0o040_000, &[][..], (0, 0)),
            Kind::File(data) => (0o100_000, data, (0, 0)),
            Kind::Symlink(to) => (0o120_000, to.as_bytes(), (0, 0)),
            Kind::CharDevice(major, minor) => (0o020_000, &[][..], (major, minor)),
        };
        self.member(path, file_type | permissions, data, device)
    }

    /// Writes the trailer and returns the writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.member("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn member(&mut self, path: &str, mode: u32, data: &[u8], device: (u32, u32)) -> io::Result<()> {
        let size = u32::try_from(data.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("{path}: too large for cpio"))
        })?;
        let name_size = path.len() as u32 + 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + name_size as usize)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// Header with name, and data, are each padded to four bytes.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_we_write() {
        let mut archive = Writer::new(Vec::new());
        archive.append("etc", 0o755, Kind::Directory).unwrap();
        archive.append("etc/motto", 0o644, Kind::File(b"shimmer\n")).unwrap();
        archive.append("init", 0o777, Kind::Symlink("etc/motto")).unwrap();
        archive.append("console", 0o600, Kind::CharDevice(5, 1)).unwrap();
        let bytes = archive.finish().unwrap();

        assert!(bytes.len().is_multiple_of(4));
        let names: Vec<&[u8]> = bytes.windows(6).filter(|w| w == b"070701").collect();
        assert_eq!(names.len(), 5, "four members and the trailer");
        // The second header starts after "etc\0" padded: 110 + 4 -> 116.
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000008", "file size");
        let data = 116 + (110 + 10);
        assert_eq!(&bytes[data..data + 8], b"shimmer\n");
    }
}
