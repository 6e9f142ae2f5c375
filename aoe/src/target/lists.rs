//! What clients set for each other: configuration string, mask list, reservation.

use alloc::vec::Vec;

use super::answer::{Answer, Body};
use super::{Settings, Step, refuse};
use crate::wire::{
    Config, ConfigCommand, DirectiveCommand, ErrorCode, Header, MacAddress, MaskCommand, MaskError, MaskList,
    ReserveCommand, ReserveList,
};

fn answer(header: Header, body: Body) -> Step<'static> {
    Step::Answer(Answer { header, body })
}

/// Config query. `None` is the answer to a question about a string that is not ours.
pub(super) fn config(settings: &mut Settings, argument: &[u8], header: Header) -> Option<Step<'static>> {
    let Ok(Config { command, string, .. }) = Config::parse(argument) else {
        return Some(refuse(header, ErrorCode::BadArgument));
    };
    let ours = &mut settings.config;
    match command {
        ConfigCommand::Read => {}
        ConfigCommand::TestEqual if ours == string => {}
        ConfigCommand::TestPrefix if ours.starts_with(string) => {}
        ConfigCommand::TestEqual | ConfigCommand::TestPrefix => return None,
        // A client that lost our answer asks again: the string is then there, and it is its own.
        ConfigCommand::Set if ours.is_empty() || ours == string => *ours = string.into(),
        ConfigCommand::Set => {
            let header = Header { error: Some(ErrorCode::ConfigStringPresent), ..header };
            return Some(answer(header, Body::Config(command)));
        }
        ConfigCommand::ForceSet => *ours = string.into(),
        ConfigCommand::Other(_) => return Some(refuse(header, ErrorCode::BadArgument)),
    }
    Some(answer(header, Body::Config(command)))
}

/// MAC mask list. An edit is carried out whole or not at all.
pub(super) fn mask(settings: &mut Settings, argument: &[u8], header: Header) -> Step<'static> {
    let Ok(list) = MaskList::parse(argument) else { return refuse(header, ErrorCode::BadArgument) };
    let error = match list.command {
        MaskCommand::Read => MaskError::None,
        MaskCommand::Edit => match edited(&settings.mask, &list) {
            Ok(mask) => {
                settings.mask = mask;
                MaskError::None
            }
            Err(error) => error,
        },
        MaskCommand::Other(_) => return refuse(header, ErrorCode::BadArgument),
    };
    answer(header, Body::Mask(list.command, error))
}

fn edited(mask: &[MacAddress], list: &MaskList<'_>) -> Result<Vec<MacAddress>, MaskError> {
    let mut mask = mask.to_vec();
    for directive in list.directives() {
        match directive.command {
            DirectiveCommand::None => {}
            DirectiveCommand::Add if mask.contains(&directive.mac) => {}
            DirectiveCommand::Add if mask.len() >= Settings::MAX_STATIONS => return Err(MaskError::Full),
            DirectiveCommand::Add => mask.push(directive.mac),
            DirectiveCommand::Delete => mask.retain(|&station| station != directive.mac),
            DirectiveCommand::Other(_) => return Err(MaskError::BadDirective),
        }
    }
    Ok(mask)
}

/// Reserve and release.
pub(super) fn reserve(
    settings: &mut Settings,
    from: MacAddress,
    argument: &[u8],
    header: Header,
) -> Step<'static> {
    let Ok(list) = ReserveList::parse(argument) else { return refuse(header, ErrorCode::BadArgument) };
    let too_many = list.macs().len() > Settings::MAX_STATIONS;
    match list.command {
        ReserveCommand::Read => {}
        ReserveCommand::Set | ReserveCommand::ForceSet if too_many => {
            return refuse(header, ErrorCode::BadArgument);
        }
        ReserveCommand::Set if !settings.may_use(from) => {
            let header = Header { error: Some(ErrorCode::TargetReserved), ..header };
            return answer(header, Body::Reserve(list.command));
        }
        ReserveCommand::Set | ReserveCommand::ForceSet => settings.reserved = list.macs().collect(),
        ReserveCommand::Other(_) => return refuse(header, ErrorCode::BadArgument),
    }
    answer(header, Body::Reserve(list.command))
}
