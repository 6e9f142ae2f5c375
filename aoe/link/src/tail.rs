//! What a frame ends with that is not copied into a transmit buffer first.

use std::io::IoSlice;

use crate::buffer::Buffer;
use crate::pages::Pages;

/// The data that a frame ends with. It is kept until the frame was sent.
#[derive(Debug)]
pub enum Tail {
    /// In the page cache.
    Pages(Pages),
    /// Of this process.
    Buffer(Buffer),
}

impl Tail {
    /// For the kernel to read from.
    pub(crate) fn io_slice(&self) -> IoSlice<'_> {
        match self {
            Tail::Pages(pages) => pages.io_slice(),
            Tail::Buffer(buffer) => IoSlice::new(buffer),
        }
    }

    pub(crate) fn pages(&self) -> Option<&Pages> {
        match self {
            Tail::Pages(pages) => Some(pages),
            Tail::Buffer(_) => None,
        }
    }
}

/// As `fill`, for links that send from their own buffers only. Mapped pages are never looked at, and such frames not sent.
pub(crate) fn copied(
    fill: impl FnOnce(&mut [u8]) -> Option<(usize, Option<Tail>)>,
) -> impl FnOnce(&mut [u8]) -> Option<usize> {
    |out| match fill(out)? {
        (length, None) => Some(length),
        (length, Some(Tail::Buffer(data))) => {
            out.get_mut(length..)?.get_mut(..data.len())?.copy_from_slice(&data);
            Some(length + data.len())
        }
        (_, Some(Tail::Pages(_))) => None,
    }
}
