//! The capture file, read back byte by byte.

use kagero_aoe::link::Link;
use kagero_link::memory::{MemoryLink, Options};
use kagero_link::{AnyLink, Error};

#[test]
fn holds_both_directions_after_the_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aoe.pcap");
    let (a, mut b) = MemoryLink::pair(Options::default()).unwrap();
    let mut a = AnyLink::from(a).captured(&path).unwrap();
    let put = |frame: &'static [u8]| {
        move |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            Some(frame.len())
        }
    };
    assert!(a.transmit(put(b"request")) && b.transmit(put(b"the answer")));
    assert!(a.receive(|frame| assert_eq!(frame, b"the answer")));
    assert!(!a.transmit(|_| None));
    drop(a);

    let file = std::fs::read(&path).unwrap();
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xA1B2_3C4D, 1));
    let mut at = 24;
    let mut frames = Vec::new();
    while at < file.len() {
        assert!(word(at) > 1_700_000_000 && word(at + 4) < 1_000_000_000, "a time stamp");
        let len = word(at + 8) as usize;
        assert_eq!(word(at + 12) as usize, len);
        frames.push(&file[at + 16..][..len]);
        at += 16 + len;
    }
    assert_eq!(frames, [&b"request"[..], b"the answer"]);
}

#[test]
fn no_such_directory_is_said() {
    let (a, _b) = MemoryLink::pair(Options::default()).unwrap();
    let error = AnyLink::from(a).captured("/no/such/directory/x.pcap".as_ref()).unwrap_err();
    assert!(matches!(error, Error::Capture { .. }));
    assert!(
        error.to_string().starts_with("cannot create capture file /no/such/directory/x.pcap: No such file")
    );
}
