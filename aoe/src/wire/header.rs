//! The 24 bytes that every AoE frame starts with.

use super::{Address, ETHERTYPE, MacAddress, Malformed, VERSION, take};

/// Bytes before the argument: the Ethernet header and the AoE header.
pub const HEADER_LENGTH: usize = 24;

/// Flag R: the frame is an answer.
const RESPONSE: u8 = 0x8;
/// Flag E: the answer reports an error of the protocol.
const ERROR: u8 = 0x4;

/// What a frame asks or answers, which says how its argument is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// An ATA command: [`Ata`](super::Ata).
    Ata,
    /// Config query: [`Config`](super::Config).
    Config,
    /// MAC mask list: [`MaskList`](super::MaskList).
    Mask,
    /// Reserve and release: [`ReserveList`](super::ReserveList).
    Reserve,
    /// Reserved, or from F0h on a vendor's own.
    Other(u8),
}

impl From<u8> for Command {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Command::Ata,
            1 => Command::Config,
            2 => Command::Mask,
            3 => Command::Reserve,
            other => Command::Other(other),
        }
    }
}

impl From<Command> for u8 {
    fn from(command: Command) -> u8 {
        match command {
            Command::Ata => 0,
            Command::Config => 1,
            Command::Mask => 2,
            Command::Reserve => 3,
            Command::Other(other) => other,
        }
    }
}

/// Why a server refused a frame, when flag E is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 1: the server doesn't know the command.
    UnrecognizedCommand,
    /// 2: something in the argument is not allowed.
    BadArgument,
    /// 3: the disk can't be reached now.
    DeviceUnavailable,
    /// 4: the configuration string is already set.
    ConfigStringPresent,
    /// 5: the server doesn't speak this version.
    UnsupportedVersion,
    /// 6: another client has reserved the disk.
    TargetReserved,
    /// Not in the document.
    Other(u8),
}

impl From<u8> for ErrorCode {
    fn from(byte: u8) -> Self {
        match byte {
            1 => ErrorCode::UnrecognizedCommand,
            2 => ErrorCode::BadArgument,
            3 => ErrorCode::DeviceUnavailable,
            4 => ErrorCode::ConfigStringPresent,
            5 => ErrorCode::UnsupportedVersion,
            6 => ErrorCode::TargetReserved,
            other => ErrorCode::Other(other),
        }
    }
}

impl From<ErrorCode> for u8 {
    fn from(code: ErrorCode) -> u8 {
        match code {
            ErrorCode::UnrecognizedCommand => 1,
            ErrorCode::BadArgument => 2,
            ErrorCode::DeviceUnavailable => 3,
            ErrorCode::ConfigStringPresent => 4,
            ErrorCode::UnsupportedVersion => 5,
            ErrorCode::TargetReserved => 6,
            ErrorCode::Other(other) => other,
        }
    }
}

/// The Ethernet header and the AoE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The station that the frame is for.
    pub destination: MacAddress,
    /// The station that sent it.
    pub source: MacAddress,
    /// The protocol version, 0 to 15; not checked by [`Frame::parse`], since a server answers other versions with an error.
    pub version: u8,
    /// Flag R: an answer, not a request.
    pub response: bool,
    /// Flag E and the error field, which means nothing without the flag.
    pub error: Option<ErrorCode>,
    /// Shelf and slot: of the disk that is meant in a request, of the disk that answers in an answer.
    pub address: Address,
    /// What is asked.
    pub command: Command,
    /// Chosen by the client; an answer carries its request's.
    pub tag: u32,
}

impl Header {
    /// The header of a request.
    #[must_use]
    pub const fn request(
        source: MacAddress,
        destination: MacAddress,
        address: Address,
        command: Command,
        tag: u32,
    ) -> Self {
        Header { destination, source, version: VERSION, response: false, error: None, address, command, tag }
    }

    /// The header of the answer to this request by the disk at `address`, whose station is `source`: unicast, even when the request
    /// was not.
    #[must_use]
    pub const fn answer(&self, source: MacAddress, address: Address) -> Self {
        Header {
            destination: self.source,
            source,
            version: VERSION,
            response: true,
            error: None,
            address,
            command: self.command,
            tag: self.tag,
        }
    }

    /// Writes the 24 bytes. `None` when `out` is shorter. Use [`encode`](super::encode) for a whole frame.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let flags = if self.response { RESPONSE } else { 0 } | if self.error.is_some() { ERROR } else { 0 };
        let out = out.get_mut(..HEADER_LENGTH)?;
        out[0..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        out[14] = self.version << 4 | flags;
        out[15] = self.error.map_or(0, u8::from);
        out[16..18].copy_from_slice(&self.address.shelf.to_be_bytes());
        out[18] = self.address.slot;
        out[19] = self.command.into();
        out[20..24].copy_from_slice(&self.tag.to_be_bytes());
        Some(HEADER_LENGTH)
    }
}

/// A received frame: its header and the bytes after it, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first 24 bytes.
    pub header: Header,
    /// All that was received after them.
    pub argument: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the header. Says nothing about version, flags and address: that is up to the receiver.
    ///
    /// # Errors
    /// [`Malformed::Short`] below 24 bytes, [`Malformed::NotAoe`] for another Ethernet type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (&head, argument) = take::<HEADER_LENGTH>(bytes)?;
        #[rustfmt::skip]
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type_high, type_low,
             version_flags, error, shelf_high, shelf_low, slot, command, t0, t1, t2, t3] = head;
        if u16::from_be_bytes([type_high, type_low]) != ETHERTYPE {
            return Err(Malformed::NotAoe);
        }
        let header = Header {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            version: version_flags >> 4,
            response: version_flags & RESPONSE != 0,
            error: (version_flags & ERROR != 0).then(|| error.into()),
            address: Address { shelf: u16::from_be_bytes([shelf_high, shelf_low]), slot },
            command: command.into(),
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
        };
        Ok(Frame { header, argument })
    }
}
