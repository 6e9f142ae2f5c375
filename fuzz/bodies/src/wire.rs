//! Frames: what is parsed and written again says the same.

use kagero_aoe::discovery::Discovery;
use kagero_aoe::wire::{
    self, Address, Ata, Command, Config, ETHERTYPE, Frame, HEADER_LENGTH, Header, MIN_FRAME, MacAddress,
    MaskList, ReserveList,
};

/// `data` is a frame; its last byte says how much room there is to write it again.
pub fn wire(data: &[u8]) {
    text(data);
    check(data);
    check(&plausible(data));
}

/// The same frame as one of AoE, with counts of what it does hold.
fn plausible(data: &[u8]) -> Vec<u8> {
    let mut frame = data.to_vec();
    let Some(argument) = data.len().checked_sub(HEADER_LENGTH + 8) else { return frame };
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    // Directives of a mask list, addresses of a reservation, bytes of a configuration string.
    frame[27] %= (argument / 8 + 1).min(255) as u8;
    frame[25] %= (argument / 6 + 1).min(255) as u8;
    let length = (usize::from(frame[31]) * 5 % (argument + 1)) as u16;
    frame[30..32].copy_from_slice(&length.to_be_bytes());
    frame
}

fn check(data: &[u8]) {
    let Ok(Frame { header, argument }) = Frame::parse(data) else { return };
    let copy = |out: &mut [u8]| {
        out.get_mut(..argument.len())?.copy_from_slice(argument);
        Some(argument.len())
    };
    let room = data.last().map_or(0, |&last| usize::from(last) * 8);
    let again = encode(room.max(data.len()).max(MIN_FRAME), &header, copy).expect("room for all");
    let parsed = Frame::parse(&again).expect("a header");
    assert_eq!((parsed.header, parsed.argument.get(..argument.len())), (header, Some(argument)));
    assert!(parsed.argument[argument.len()..].iter().all(|&byte| byte == 0), "padding");
    // Too little room is told, whatever the room.
    assert_eq!(encode(room, &header, copy).is_some(), room >= data.len().max(MIN_FRAME));

    if let Ok((ata, rest)) = Ata::parse(argument) {
        let again = encode(room, &header, |out| ata.encode(out));
        if let Some(again) = again {
            assert_eq!(Ata::parse(&again[24..]).map(|(ata, _)| ata), Ok(ata));
        }
        for sectors in [0, 1, 2, 17, usize::MAX] {
            assert_eq!(Ata::data(rest, sectors).is_ok(), rest.len() / wire::SECTOR >= sectors);
        }
    }
    if let Ok(config) = Config::parse(argument)
        && let Some(again) = encode(room, &header, |out| config.encode(out))
    {
        assert_eq!(Config::parse(&again[24..]), Ok(config));
    }
    if let Ok(list) = MaskList::parse(argument) {
        let encode = |out: &mut [u8]| MaskList::encode(out, list.command, list.error, list.directives());
        if let Some(again) = self::encode(room, &header, encode) {
            let parsed = MaskList::parse(&again[24..]).expect("a list");
            assert!(parsed.directives().eq(list.directives()) && parsed.command == list.command);
        }
    }
    if let Ok(list) = ReserveList::parse(argument)
        && let Some(again) = encode(room, &header, |out| ReserveList::encode(out, list.command, list.macs()))
    {
        let parsed = ReserveList::parse(&again[24..]).expect("a list");
        assert!(parsed.macs().eq(list.macs()) && parsed.command == list.command);
    }

    let mut discovery = Discovery::new(header.destination, Address::BROADCAST, 3);
    if discovery.handle_frame(data) {
        let found = discovery.found();
        assert!(header.response && header.command == Command::Config && found.len() == 1);
        assert!(!discovery.handle_frame(data), "each is found once");
    }
}

/// Writes a frame into a buffer with so much room, full of what an earlier frame left.
fn encode(
    room: usize,
    header: &Header,
    argument: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0xee; room];
    let length = wire::encode(&mut buffer, header, argument)?;
    buffer.truncate(length);
    Some(buffer)
}

/// What is written as text is read as the same.
fn text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(mac) = text.parse::<MacAddress>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
    let _either = text.parse::<kagero_aoe::simulation::Faults>();
}
