//! A capture file of everything that crosses a link, for Wireshark and tcpdump.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kagero_aoe::link::Link;

use crate::{Error, ServerLink};

/// The classic pcap format with nanoseconds, in this machine's byte order: readers tell by the magic number.
const MAGIC: u32 = 0xA1B2_3C4D;

/// `DLT_EN10MB`: Ethernet.
const ETHERNET: u32 = 1;

/// What waits in memory reaches the file this often, if frames go on coming.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// A capture file being written.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    flushed: Instant,
    broken: bool,
}

impl Writer {
    /// Creates the file, over an old one of this name.
    ///
    /// # Errors
    /// [`Error::Capture`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Capture { path: path.into(), source };
        let mut file = BufWriter::with_capacity(256 << 10, File::create(path).map_err(failed)?);
        // Magic, version 2.4, time zone, accuracy, longest frame, link type.
        let mut header = [0; 24];
        header[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        header[4..6].copy_from_slice(&2u16.to_ne_bytes());
        header[6..8].copy_from_slice(&4u16.to_ne_bytes());
        header[16..20].copy_from_slice(&(256u32 << 10).to_ne_bytes());
        header[20..].copy_from_slice(&ETHERNET.to_ne_bytes());
        file.write_all(&header).and_then(|()| file.flush()).map_err(failed)?;
        Ok(Writer { file, flushed: Instant::now(), broken: false })
    }

    /// Appends a frame, with the time of day as its time stamp. When the file can't be written any more, says so once and captures no more:
    /// the traffic goes on.
    pub fn frame(&mut self, frame: &[u8]) {
        if !self.broken
            && let Err(error) = self.append(frame)
        {
            tracing::warn!(%error, "capture file: cannot write, the capture ends here");
            self.broken = true;
        }
    }

    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
        for word in [at.as_secs() as u32, at.subsec_nanos(), len, len] {
            self.file.write_all(&word.to_ne_bytes())?;
        }
        self.file.write_all(frame)?;
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.file.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }
}

/// A link whose frames, of both directions, are also written to a capture file. What waits in memory is written when it is dropped.
#[derive(Debug)]
pub struct Captured<L> {
    link: L,
    writer: Option<Writer>,
}

impl<L> Captured<L> {
    /// Captures to `writer`; with `None`, only hands on.
    pub fn new(link: L, writer: Option<Writer>) -> Self {
        Captured { link, writer }
    }

    /// From now on captures to `writer`; with `None`, no more.
    pub fn capture(&mut self, writer: Option<Writer>) {
        self.writer = writer;
    }

    /// The link itself.
    pub fn link(&mut self) -> &mut L {
        &mut self.link
    }
}

impl<L: Link> Link for Captured<L> {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let writer = &mut self.writer;
        self.link.receive(|frame| {
            if let Some(writer) = writer {
                writer.frame(frame);
            }
            take(frame);
        })
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let writer = &mut self.writer;
        self.link.transmit(|buffer| {
            let len = fill(buffer)?;
            if let (Some(writer), Some(frame)) = (writer, buffer.get(..len)) {
                writer.frame(frame);
            }
            Some(len)
        })
    }

    fn hold(&mut self) {
        self.link.hold();
    }

    fn flush(&mut self) -> bool {
        self.link.flush()
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.link.mac()
    }
}

impl<L: Link> ServerLink for Captured<L> {}

impl<L: AsFd> AsFd for Captured<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}
