//! Answers, from the decision to the frame.

use kagero_devices::ata::{self, bits::status};

use super::{Export, Port};
use crate::wire::{
    self, ATA_LENGTH, Address, Ata, Config, ConfigCommand, DATA_OFFSET, DirectiveCommand, HEADER_LENGTH,
    Header, MaskCommand, MaskDirective, MaskError, MaskList, ReserveCommand, ReserveList, SECTOR, VERSION,
};

/// The firmware version that a config query reports.
const FIRMWARE: u16 = 1;

/// The answer to one request, ready for [`Target::encode`](super::Target::encode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) header: Header,
    pub(super) body: Body,
}

/// What follows the header. Lists and the disk's own data are looked up when it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Zeros, with an error in the header.
    Nothing,
    /// Registers, and `data` bytes that are in the frame already.
    Ata { registers: Ata, data: usize },
    /// Registers, and 512 bytes that the drive makes up itself.
    Drive { registers: Ata, data: ata::Answer },
    /// Config query.
    Config(ConfigCommand),
    /// Mask list.
    Mask(MaskCommand, MaskError),
    /// Reservation.
    Reserve(ReserveCommand),
}

impl Answer {
    /// Whether the request failed, by the protocol or in the ATA registers.
    #[must_use]
    pub fn is_error(&self) -> bool {
        let failed = match self.body {
            Body::Ata { registers, .. } => registers.command & status::ERR != 0,
            Body::Mask(_, error) => error != MaskError::None,
            Body::Nothing | Body::Drive { .. } | Body::Config(_) | Body::Reserve(_) => false,
        };
        failed || self.header.error.is_some()
    }

    /// Whether it tells its client that what it has set is set. Who keeps settings over a restart does so before this is sent.
    #[must_use]
    pub fn confirms_settings(&self) -> bool {
        let set = match self.body {
            Body::Config(command) => matches!(command, ConfigCommand::Set | ConfigCommand::ForceSet),
            Body::Mask(command, _) => command == MaskCommand::Edit,
            Body::Reserve(command) => matches!(command, ReserveCommand::Set | ReserveCommand::ForceSet),
            Body::Nothing | Body::Ata { .. } | Body::Drive { .. } => false,
        };
        set && !self.is_error()
    }

    /// The disk that answers.
    #[must_use]
    pub fn address(&self) -> Address {
        self.header.address
    }

    /// The part of the frame `out` that the data of a read goes to, empty when there is none; `None` when `out` is too short.
    #[must_use]
    pub fn data<'b>(&self, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
        let data = if let Body::Ata { data, .. } = self.body { data } else { 0 };
        out.get_mut(DATA_OFFSET..)?.get_mut(..data)
    }

    /// As [`Target::encode`](super::Target::encode), for an answer that says nothing of the disk: one to a [`Job`](super::Job). Of others `None`.
    pub fn encode_finished(&self, out: &mut [u8]) -> Option<usize> {
        let Body::Ata { registers, data } = self.body else { return None };
        wire::encode(out, &self.header, |out| Some(registers.encode(out)? + data))
    }

    pub(super) fn encode(&self, export: &Export, port: &Port, out: &mut [u8]) -> Option<usize> {
        let settings = &export.settings;
        wire::encode(out, &self.header, |out| match self.body {
            Body::Nothing => Some(0),
            Body::Ata { registers, data } => Some(registers.encode(out)? + data),
            Body::Drive { registers, data } => {
                let length = registers.encode(out)?;
                out.get_mut(length..length + SECTOR)?.copy_from_slice(&export.drive.answer(data));
                Some(length + SECTOR)
            }
            Body::Config(command) => Config {
                buffer_count: port.buffer_count,
                firmware: FIRMWARE,
                sectors: port.sectors(),
                version: VERSION,
                command,
                string: &settings.config,
            }
            .encode(out),
            Body::Mask(command, error) => {
                let entry = |&mac| MaskDirective { command: DirectiveCommand::None, mac };
                MaskList::encode(out, command, error, settings.mask.iter().map(entry))
            }
            Body::Reserve(command) => ReserveList::encode(out, command, settings.reserved.iter().copied()),
        })
    }
}

/// The longest answer that is no read: a configuration string, or lists of [`MAX_STATIONS`](super::Settings::MAX_STATIONS).
const _: () = {
    let lists = HEADER_LENGTH + 4 + super::Settings::MAX_STATIONS * 8;
    let string = HEADER_LENGTH + wire::CONFIG_LENGTH + wire::MAX_CONFIG_STRING;
    let identify = HEADER_LENGTH + ATA_LENGTH + SECTOR;
    let least = wire::ETHERNET_HEADER + 1_100;
    assert!(lists <= least && string <= least && identify <= least);
};
