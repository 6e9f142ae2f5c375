//! The arguments of commands 2 and 3: lists of stations that may talk to a server, or use its disk.

use super::{MacAddress, Malformed, front, take};

/// Bytes before the directives of a mask list, and before the addresses of a reserve list.
const MASK_LENGTH: usize = 4;
const RESERVE_LENGTH: usize = 2;

/// What to do with the mask list (MCmd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskCommand {
    /// 0: answer with it.
    Read,
    /// 1: carry out the directives, in order.
    Edit,
    /// Not in the document.
    Other(u8),
}

/// Why a mask list was not edited (MError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskError {
    /// 0: it was.
    None,
    /// 1.
    Unspecified,
    /// 2: a directive with an unknown command.
    BadDirective,
    /// 3: the list is full.
    Full,
    /// Not in the document.
    Other(u8),
}

/// What a directive does (DCmd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectiveCommand {
    /// 0: nothing; so are the entries of an answer marked.
    None,
    /// 1: let this station in.
    Add,
    /// 2: take it off the list.
    Delete,
    /// Not in the document.
    Other(u8),
}

/// Maps the byte of a field to a closed enum and back.
macro_rules! byte_enum {
    ($name:ident { $($byte:literal => $variant:ident),* $(,)? }) => {
        impl From<u8> for $name {
            fn from(byte: u8) -> Self {
                match byte {
                    $($byte => $name::$variant,)*
                    other => $name::Other(other),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> u8 {
                match value {
                    $($name::$variant => $byte,)*
                    $name::Other(other) => other,
                }
            }
        }
    };
}

byte_enum!(MaskCommand { 0 => Read, 1 => Edit });
byte_enum!(MaskError { 0 => None, 1 => Unspecified, 2 => BadDirective, 3 => Full });
byte_enum!(DirectiveCommand { 0 => None, 1 => Add, 2 => Delete });
byte_enum!(ReserveCommand { 0 => Read, 1 => Set, 2 => ForceSet });

/// One entry of a mask list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskDirective {
    /// What to do.
    pub command: DirectiveCommand,
    /// With whom.
    pub mac: MacAddress,
}

/// A mask list: when it isn't empty, a server ignores every station that is not on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskList<'a> {
    /// What to do.
    pub command: MaskCommand,
    /// In an answer: why it was not done.
    pub error: MaskError,
    directives: &'a [[u8; 8]],
}

impl<'a> MaskList<'a> {
    /// Reads the argument, with directives that lie wholly inside the frame.
    ///
    /// # Errors
    /// [`Malformed::Short`] when the frame holds fewer directives than it announces.
    pub fn parse(argument: &'a [u8]) -> Result<Self, Malformed> {
        let (&[_, command, error, count], rest) = take::<MASK_LENGTH>(argument)?;
        let (directives, _) = front(rest, usize::from(count) * 8)?.as_chunks();
        Ok(MaskList { command: command.into(), error: error.into(), directives })
    }

    /// The directives, at most 255.
    pub fn directives(&self) -> impl ExactSizeIterator<Item = MaskDirective> + use<'a> {
        self.directives.iter().map(|&[_, command, a, b, c, d, e, f]| MaskDirective {
            command: command.into(),
            mac: MacAddress([a, b, c, d, e, f]),
        })
    }

    /// Writes an argument and returns its length. `None` when `out` is too short or there are more than 255 directives.
    pub fn encode(
        out: &mut [u8],
        command: MaskCommand,
        error: MaskError,
        directives: impl ExactSizeIterator<Item = MaskDirective>,
    ) -> Option<usize> {
        let count = u8::try_from(directives.len()).ok()?;
        let (head, rest) = out.split_first_chunk_mut::<MASK_LENGTH>()?;
        *head = [0, command.into(), error.into(), count];
        let (slots, _) = rest.get_mut(..usize::from(count) * 8)?.as_chunks_mut();
        for (slot, directive) in slots.iter_mut().zip(directives) {
            let [a, b, c, d, e, f] = directive.mac.0;
            *slot = [0, directive.command.into(), a, b, c, d, e, f];
        }
        Some(MASK_LENGTH + usize::from(count) * 8)
    }
}

/// What to do with the reservation (RCmd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveCommand {
    /// 0: answer with the list.
    Read,
    /// 1: set it, if the disk is free or the sender is on the list. An empty list releases the disk.
    Set,
    /// 2: set it whoever holds it.
    ForceSet,
    /// Not in the document.
    Other(u8),
}

/// A reservation: when the list isn't empty, only the stations on it may send ATA commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveList<'a> {
    /// What to do.
    pub command: ReserveCommand,
    macs: &'a [[u8; 6]],
}

impl<'a> ReserveList<'a> {
    /// Reads the argument, with addresses that lie wholly inside the frame.
    ///
    /// # Errors
    /// [`Malformed::Short`] when the frame holds fewer addresses than it announces.
    pub fn parse(argument: &'a [u8]) -> Result<Self, Malformed> {
        let (&[command, count], rest) = take::<RESERVE_LENGTH>(argument)?;
        let (macs, _) = front(rest, usize::from(count) * 6)?.as_chunks();
        Ok(ReserveList { command: command.into(), macs })
    }

    /// The stations, at most 255.
    pub fn macs(&self) -> impl ExactSizeIterator<Item = MacAddress> + use<'a> {
        self.macs.iter().copied().map(MacAddress)
    }

    /// Writes an argument and returns its length. `None` when `out` is too short or there are more than 255 addresses.
    pub fn encode(
        out: &mut [u8],
        command: ReserveCommand,
        macs: impl ExactSizeIterator<Item = MacAddress>,
    ) -> Option<usize> {
        let count = u8::try_from(macs.len()).ok()?;
        let (head, rest) = out.split_first_chunk_mut::<RESERVE_LENGTH>()?;
        *head = [command.into(), count];
        let (slots, _) = rest.get_mut(..usize::from(count) * 6)?.as_chunks_mut();
        for (slot, mac) in slots.iter_mut().zip(macs) {
            *slot = mac.0;
        }
        Some(RESERVE_LENGTH + usize::from(count) * 6)
    }
}
