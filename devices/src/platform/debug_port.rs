//! The debug port, 402h, to which firmware writes its log.

use alloc::vec::Vec;
use core::mem;

use super::{byte, byte_mut};
use crate::register::Fault;

/// Collects what firmware writes into lines.
///
/// After each write, [`poll_line`](Self::poll_line) until it gives `None`.
#[derive(Clone, Debug, Default)]
pub struct DebugPort {
    line: Vec<u8>,
    complete: bool,
}

impl DebugPort {
    /// Longer lines are cut here.
    pub const LONGEST_LINE: usize = 512;

    /// Nothing written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes the line that a reset cut short.
    pub fn reset(&mut self) {
        let Self { line, complete } = self;
        *complete = !line.is_empty();
    }

    /// Reads the port: E9h, by which firmware finds it.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn read(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        *byte_mut(out)? = 0xe9;
        Ok(())
    }

    /// Writes one byte of the log.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Fault> {
        let value = byte(data)?;
        if mem::take(&mut self.complete) {
            self.line.clear(); // The caller did not want it.
        }
        if value != b'\n' {
            self.line.push(value);
        }
        self.complete = value == b'\n' || self.line.len() >= Self::LONGEST_LINE;
        Ok(())
    }

    /// A complete line, without its end.
    pub fn poll_line(&mut self) -> Option<Vec<u8>> {
        mem::take(&mut self.complete).then(|| mem::take(&mut self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_lines() {
        let mut port = DebugPort::new();
        let mut lines = Vec::new();
        for byte in b"SeaBIOS\n\nhalf" {
            port.write(&[*byte]).unwrap();
            lines.extend(port.poll_line());
        }
        port.reset();
        lines.extend(port.poll_line());
        assert_eq!(lines, [&b"SeaBIOS"[..], b"", b"half"]);
        for _ in 0..DebugPort::LONGEST_LINE {
            assert_eq!(port.poll_line(), None);
            port.write(b"x").unwrap();
        }
        assert_eq!(port.poll_line().map(|line| line.len()), Some(DebugPort::LONGEST_LINE));
    }
}
