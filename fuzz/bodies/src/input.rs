//! Input as a source of choices.

/// Reads numbers from an input. Past its end there are zeros.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Input(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most so many bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Less than `end`, which is at most 256.
    pub(crate) fn below(&mut self, end: u16) -> usize {
        usize::from(u16::from(self.byte()) % end)
    }

    /// One of these.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u16)]
    }

    /// One chance in `of`.
    pub(crate) fn rarely(&mut self, of: u16) -> bool {
        self.below(of) == 1
    }

    /// A number of any size, small ones as likely as large ones.
    pub(crate) fn number(&mut self) -> u64 {
        let bits = self.byte() % 65;
        self.u64().checked_shr(u32::from(64 - bits)).unwrap_or(0)
    }
}
