//! The argument of command 1: what a server is, and the configuration string that it keeps for its clients.

use super::{Malformed, VERSION, front, take};

/// Bytes before the configuration string.
pub const CONFIG_LENGTH: usize = 8;

/// Bytes that a configuration string may have.
pub const MAX_CONFIG_STRING: usize = 1024;

/// What to do with the configuration string (CCmd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigCommand {
    /// 0: answer with it.
    Read,
    /// 1: answer only if it equals the given one.
    TestEqual,
    /// 2: answer only if it starts with the given one.
    TestPrefix,
    /// 3: set it if it is empty or equal, else answer with error 4.
    Set,
    /// 4: set it whatever it was.
    ForceSet,
    /// Not in the document; 4 bits.
    Other(u8),
}

impl From<u8> for ConfigCommand {
    fn from(nibble: u8) -> Self {
        match nibble & 0xf {
            0 => ConfigCommand::Read,
            1 => ConfigCommand::TestEqual,
            2 => ConfigCommand::TestPrefix,
            3 => ConfigCommand::Set,
            4 => ConfigCommand::ForceSet,
            other => ConfigCommand::Other(other),
        }
    }
}

impl From<ConfigCommand> for u8 {
    fn from(command: ConfigCommand) -> u8 {
        match command {
            ConfigCommand::Read => 0,
            ConfigCommand::TestEqual => 1,
            ConfigCommand::TestPrefix => 2,
            ConfigCommand::Set => 3,
            ConfigCommand::ForceSet => 4,
            ConfigCommand::Other(other) => other & 0xf,
        }
    }
}

/// A config query, or its answer: the layout is the same, and a query leaves the first three at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// How many requests the server can hold at once; more are likely to be dropped.
    pub buffer_count: u16,
    /// The server's firmware version.
    pub firmware: u16,
    /// The most sectors the server takes in one frame, as on the wire, where 0 means 2: see
    /// [`sectors_per_frame`](Self::sectors_per_frame).
    pub sectors: u8,
    /// The highest protocol version that the server speaks, 4 bits.
    pub version: u8,
    /// What to do with the string.
    pub command: ConfigCommand,
    /// The configuration string, at most [`MAX_CONFIG_STRING`] bytes.
    pub string: &'a [u8],
}

impl<'a> Config<'a> {
    /// The query that only reads.
    #[must_use]
    pub const fn query() -> Self {
        Config {
            buffer_count: 0,
            firmware: 0,
            sectors: 0,
            version: VERSION,
            command: ConfigCommand::Read,
            string: &[],
        }
    }

    /// The most sectors the server takes in one frame, at least 1.
    #[must_use]
    pub const fn sectors_per_frame(&self) -> u8 {
        if self.sectors == 0 { 2 } else { self.sectors }
    }

    /// Reads the argument, with a string that lies wholly inside the frame.
    ///
    /// # Errors
    /// [`Malformed::TooLong`] for a string of more than 1,024 bytes, [`Malformed::Short`] when the frame ends before it does.
    pub fn parse(argument: &'a [u8]) -> Result<Self, Malformed> {
        let (&[b0, b1, f0, f1, sectors, version_command, l0, l1], rest) = take::<CONFIG_LENGTH>(argument)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length > MAX_CONFIG_STRING {
            return Err(Malformed::TooLong);
        }
        Ok(Config {
            buffer_count: u16::from_be_bytes([b0, b1]),
            firmware: u16::from_be_bytes([f0, f1]),
            sectors,
            version: version_command >> 4,
            command: version_command.into(),
            string: front(rest, length)?,
        })
    }

    /// Writes the argument and returns its length. `None` when `out` is too short or the string too long.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let length =
            u16::try_from(self.string.len()).ok().filter(|&n| usize::from(n) <= MAX_CONFIG_STRING)?;
        let (head, rest) = out.split_first_chunk_mut::<CONFIG_LENGTH>()?;
        let ([b0, b1], [f0, f1]) = (self.buffer_count.to_be_bytes(), self.firmware.to_be_bytes());
        let [l0, l1] = length.to_be_bytes();
        *head = [b0, b1, f0, f1, self.sectors, self.version << 4 | u8::from(self.command), l0, l1];
        rest.get_mut(..self.string.len())?.copy_from_slice(self.string);
        Some(CONFIG_LENGTH + self.string.len())
    }
}
