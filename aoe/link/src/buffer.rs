//! Memory for data that is read or written somewhere else than on a link, and sent from there.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// What O_DIRECT may ask of an address in memory, on any disk with sectors of up to 4 KiB.
const ALIGNMENT: usize = 4096;

/// Bytes at an address that O_DIRECT takes. They stay there when the value is moved. Dropped, they go back to where they were
/// [taken](Buffers::take) from.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    length: usize,
    home: Option<Arc<Mutex<Vec<Memory>>>>,
}

#[derive(Debug, Default)]
struct Memory {
    bytes: Box<[u8]>,
    start: usize,
}

impl Memory {
    fn with_room(length: usize) -> Self {
        let bytes = vec![0; length.next_multiple_of(ALIGNMENT) + ALIGNMENT].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Memory { bytes, start }
    }

    fn room(&self) -> usize {
        self.bytes.len() - self.start
    }
}

impl Buffer {
    /// One of zeros, which belongs nowhere.
    #[must_use]
    pub fn with_room(length: usize) -> Self {
        Buffer { memory: Memory::with_room(length), length, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes[self.memory.start..][..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[self.memory.start..][..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let mut home = home.lock().unwrap_or_else(PoisonError::into_inner);
        if home.len() < Buffers::KEPT {
            home.push(std::mem::take(&mut self.memory));
        }
    }
}

/// Buffers to be used again.
#[derive(Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Memory>>>);

impl Buffers {
    /// Kept at most: what is under way with many clients, and no more than a few megabytes.
    const KEPT: usize = 256;
    /// What a jumbo frame carries, so that any of those will do.
    const USUAL: usize = 17 * 512;

    /// One with unknown contents.
    #[must_use]
    pub fn take(&self, length: usize) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_if(|kept| kept.room() >= length);
        let memory = kept.unwrap_or_else(|| Memory::with_room(length.max(Self::USUAL)));
        Buffer { memory, length, home: Some(Arc::clone(&self.0)) }
    }

    /// One with these contents.
    #[must_use]
    pub fn copy(&self, data: &[u8]) -> Buffer {
        let mut buffer = self.take(data.len());
        buffer.copy_from_slice(data);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(buffers: &Buffers) -> usize {
        buffers.0.lock().unwrap().len()
    }

    #[test]
    fn buffers_begin_where_direct_io_wants_it() {
        let buffers = Buffers::default();
        for length in [0, 1, 512, 4096, 8704] {
            let buffer = buffers.copy(&vec![7; length]);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % 4096), (length, 0));
            assert!(buffer.iter().all(|&byte| byte == 7));
            drop(buffer);
            assert_eq!(kept(&buffers), 1, "the same one each time");
        }
        let large = buffers.take(130_560);
        assert_eq!((large.len(), large.as_ptr().addr() % 4096), (130_560, 0));
        assert_eq!(kept(&buffers), 1, "the one without the room stays");
    }

    #[test]
    fn only_so_many_are_kept() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..2 * Buffers::KEPT).map(|_| buffers.take(512)).collect();
        drop(taken);
        assert_eq!(kept(&buffers), Buffers::KEPT);
        drop(Buffer::with_room(512));
        assert_eq!(kept(&buffers), Buffers::KEPT);
    }
}
