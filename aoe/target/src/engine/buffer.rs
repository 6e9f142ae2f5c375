//! Memory for the data of requests that are under way.

use std::ops::{Deref, DerefMut};

/// What O_DIRECT may ask of an address in memory, on any disk with sectors of up to 4 KiB.
const ALIGNMENT: usize = 4096;

/// Bytes at an address that O_DIRECT takes. They stay there when the value is moved.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// One of zeros.
    pub(crate) fn with_room(length: usize) -> Self {
        let memory = vec![0; length.next_multiple_of(ALIGNMENT) + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Buffer { memory, start, length }
    }

    fn room(&self) -> usize {
        self.memory.len() - self.start
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

/// Buffers to be used again.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Vec<Buffer>);

impl Buffers {
    /// Kept at most: what is under way with many clients, and no more than a few megabytes.
    const KEPT: usize = 256;
    /// What a jumbo frame carries, so that any of those will do.
    const USUAL: usize = 17 * 512;

    /// One with unknown contents.
    pub(crate) fn take(&mut self, length: usize) -> Buffer {
        match self.0.pop_if(|buffer| buffer.room() >= length) {
            Some(buffer) => Buffer { length, ..buffer },
            None => Buffer { length, ..Buffer::with_room(length.max(Self::USUAL)) },
        }
    }

    /// One with these contents.
    pub(crate) fn copy(&mut self, data: &[u8]) -> Buffer {
        let mut buffer = self.take(data.len());
        buffer.copy_from_slice(data);
        buffer
    }

    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        if self.0.len() < Self::KEPT {
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_where_direct_io_wants_it() {
        let mut buffers = Buffers::default();
        for length in [0, 1, 512, 4096, 8704] {
            let buffer = buffers.copy(&vec![7; length]);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % 4096), (length, 0));
            assert!(buffer.iter().all(|&byte| byte == 7));
            buffers.give_back(buffer);
            assert_eq!(buffers.0.len(), 1, "the same one each time");
        }
        let large = buffers.take(130_560);
        assert_eq!((large.len(), large.as_ptr().addr() % 4096), (130_560, 0));
        assert_eq!(buffers.0.len(), 1, "the one without the room stays");
    }
}
