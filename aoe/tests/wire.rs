//! Properties of the wire format: what is written is read back, and no bytes make parsing panic.

use kagero_aoe::wire::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(MacAddress)
}

fn header() -> impl Strategy<Value = Header> {
    (mac(), mac(), 0..16u8, any::<bool>(), any::<Option<u8>>(), any::<(u16, u8, u8, u32)>()).prop_map(
        |(destination, source, version, response, error, (shelf, slot, command, tag))| Header {
            destination,
            source,
            version,
            response,
            error: error.map(ErrorCode::from),
            address: Address { shelf, slot },
            command: command.into(),
            tag,
        },
    )
}

fn ata() -> impl Strategy<Value = Ata> {
    (any::<(bool, bool, bool, bool)>(), any::<(u8, u8, u8, [u8; 6])>()).prop_map(
        |((extended, device, asynchronous, write), (feature, count, command, lba))| Ata {
            extended,
            device,
            asynchronous,
            write,
            feature,
            count,
            command,
            lba,
        },
    )
}

/// A frame with this header and argument; fails the test when it doesn't fit.
fn frame(header: &Header, argument: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut buffer = vec![0x55; 4096];
    let length = encode(&mut buffer, header, argument).unwrap();
    buffer.truncate(length);
    buffer
}

/// Every parser on every prefix of these bytes.
fn parse_all(bytes: &[u8]) {
    if let Ok(frame) = Frame::parse(bytes) {
        let _ = Ata::parse(frame.argument).map(|(ata, rest)| Ata::data(rest, ata.count.into()));
        let _ = Config::parse(frame.argument);
        let _ = MaskList::parse(frame.argument).map(|list| list.directives().count());
        let _ = ReserveList::parse(frame.argument).map(|list| list.macs().count());
    }
}

proptest! {
    #[test]
    fn ata_frames(header in header(), ata in ata(), data in vec(any::<u8>(), 0..3000)) {
        let bytes = frame(&header, |out| {
            let length = ata.encode(out)?;
            out.get_mut(length..length + data.len())?.copy_from_slice(&data);
            Some(length + data.len())
        });
        prop_assert!(bytes.len() >= MIN_FRAME);
        let parsed = Frame::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.header, header);
        let (registers, rest) = Ata::parse(parsed.argument).unwrap();
        prop_assert_eq!(registers, ata);
        prop_assert_eq!(&rest[..data.len()], &data[..]);
        prop_assert!(rest[data.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn config_frames(header in header(), numbers in any::<(u16, u16, u8, u8)>(), version in 0..16u8, string in vec(any::<u8>(), 0..=1024)) {
        let (buffer_count, firmware, sectors, command) = numbers;
        let config = Config { buffer_count, firmware, sectors, version, command: command.into(), string: &string };
        let bytes = frame(&header, |out| config.encode(out));
        let argument = Frame::parse(&bytes).unwrap().argument;
        prop_assert_eq!(Config::parse(argument), Ok(config));
        // A string that the frame doesn't hold is refused, not read from what lies beyond.
        let cut = CONFIG_LENGTH + string.len();
        for shorter in 0..cut {
            let refused = matches!(Config::parse(&argument[..shorter]), Err(Malformed::Short { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn mask_frames(header in header(), entries in vec((any::<u8>(), mac()), 0..=255), command in any::<u8>(), error in any::<u8>()) {
        let entries: Vec<_> =
            entries.into_iter().map(|(command, mac)| MaskDirective { command: command.into(), mac }).collect();
        let bytes = frame(&header, |out| MaskList::encode(out, command.into(), error.into(), entries.iter().copied()));
        let argument = Frame::parse(&bytes).unwrap().argument;
        let list = MaskList::parse(argument).unwrap();
        prop_assert_eq!(u8::from(list.command), command);
        prop_assert_eq!(u8::from(list.error), error);
        prop_assert_eq!(list.directives().collect::<Vec<_>>(), &entries[..]);
        let refused = MaskList::parse(&argument[..4 + entries.len() * 8 - 1]).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn reserve_frames(header in header(), macs in vec(mac(), 0..=255), command in any::<u8>()) {
        let bytes = frame(&header, |out| ReserveList::encode(out, command.into(), macs.iter().copied()));
        let argument = Frame::parse(&bytes).unwrap().argument;
        let list = ReserveList::parse(argument).unwrap();
        prop_assert_eq!(u8::from(list.command), command);
        prop_assert_eq!(list.macs().collect::<Vec<_>>(), &macs[..]);
        let refused = ReserveList::parse(&argument[..2 + macs.len() * 6 - 1]).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), aoe in any::<bool>()) {
        if aoe && bytes.len() > 13 {
            bytes[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        }
        for length in 0..=bytes.len() {
            parse_all(&bytes[..length]);
        }
    }
}

#[test]
fn other_frames_are_refused() {
    assert_eq!(Frame::parse(&[0; 60]), Err(Malformed::NotAoe));
    assert_eq!(Frame::parse(&[0; 23]), Err(Malformed::Short { needed: 24, present: 23 }));
    let mut argument = [0; 8 + 1025];
    argument[6..8].copy_from_slice(&1025u16.to_be_bytes());
    assert_eq!(Config::parse(&argument), Err(Malformed::TooLong));
}

#[test]
fn the_layout_is_the_documents() {
    let header = Header {
        error: Some(ErrorCode::BadArgument),
        response: true,
        ..Header::request(
            MacAddress([1; 6]),
            MacAddress([2; 6]),
            Address { shelf: 0x0708, slot: 9 },
            Command::Ata,
            0x0a0b_0c0d,
        )
    };
    let ata = Ata {
        extended: true,
        write: true,
        feature: 0x11,
        count: 2,
        command: 0x34,
        lba: [1, 2, 3, 4, 5, 6],
        ..Ata::default()
    };
    let bytes = frame(&header, |out| ata.encode(out));
    #[rustfmt::skip]
    let expected = [
        2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x88, 0xa2,
        0x1c, 2, 7, 8, 9, 0, 0x0a, 0x0b, 0x0c, 0x0d,
        0x41, 0x11, 2, 0x34, 1, 2, 3, 4, 5, 6, 0, 0,
    ];
    assert_eq!(bytes[..36], expected);
    assert_eq!(bytes[36..], [0; 24]);
}
