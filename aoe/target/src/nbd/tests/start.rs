//! Servers that are refused, or not there.

use std::io::Write;

use kagero_aoe::target::{Fault, Range};

use super::{PATIENT, all};
use crate::backend::Backend;
use crate::nbd::toy::{Manners, Toy};
use crate::nbd::wire::{answer, flag};
use crate::nbd::{Nbd, NbdUri};
use crate::{Access, Image};

/// The line that a server with these manners gets.
fn refusal(manners: Manners, access: Access) -> String {
    let toy = Toy::new(manners);
    let text = Nbd::open(&toy.uri(), access, PATIENT).unwrap_err().to_string();
    let name = format!("NBD export {}: ", toy.uri());
    text.strip_prefix(&name).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn what_is_refused_at_the_start() {
    let usual = Manners::default();
    let both = |manners: Manners| {
        let text = refusal(manners.clone(), Access::ReadWrite);
        assert_eq!(refusal(manners, Access::ReadOnly), text);
        text
    };
    let error = |error| Manners { refusal: Some(error), ..usual.clone() };
    assert_eq!(
        both(error(answer::UNKNOWN)),
        "the server has no export \"disk\": `qemu-nbd --list` shows what it has"
    );
    assert!(both(error(answer::TLS_REQUIRED)).starts_with("the server demands TLS, "));
    assert_eq!(both(error(answer::ERROR + 2)), "the server refuses (not  for you): check its log");
    assert_eq!(both(Manners { size: 0, ..usual.clone() }), "it is empty: give it a size");
    assert!(both(Manners { size: 1_000, ..usual.clone() }).starts_with("it has 1000 bytes, not a multiple"));
    let sizes = [(3, 512), (0, 512), (131_072, 1 << 20), (4_096, 512), (1, 0), (1, 100)];
    for (least, most) in sizes {
        let text = both(Manners { blocks: Some((least, most)), ..usual.clone() });
        let line = format!("the server claims blocks of {least} to {most} bytes in 1048576, ");
        assert!(text.starts_with(&line), "{text}");
    }
    let odd = Manners { size: 4_608, blocks: Some((4_096, 4_096)), ..usual.clone() };
    assert!(both(odd).starts_with("the server claims blocks of 4096 to 4096 bytes in 4608, "));

    let read_only = Manners { flags: flag::FLUSH | flag::READ_ONLY, ..usual.clone() };
    let text = refusal(read_only.clone(), Access::ReadWrite);
    assert!(text.starts_with("the server offers it read-only: "), "{text}");
    let volatile = Manners { flags: flag::TRIM, ..usual };
    let text = refusal(volatile.clone(), Access::ReadWrite);
    assert!(text.starts_with("the server knows neither flush nor FUA, "), "{text}");
    for manners in [read_only, volatile] {
        let toy = Toy::new(manners);
        let nbd = Nbd::open(&toy.uri(), Access::ReadOnly, PATIENT).unwrap();
        assert!(all(&nbd) == toy.disk());
        assert_eq!(nbd.write(0, &[1; 512], false), Err(Fault::Aborted));
        assert_eq!(nbd.trim(Range { offset: 0, length: 512 }), Err(Fault::Aborted));
        assert_eq!(nbd.flush(), Ok(()));
    }
}

#[test]
fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let uri: NbdUri = format!("nbd+unix:///a?socket={}/s", folder.path().display()).parse().unwrap();
    let text = Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "NBD export {uri}: no server answers (No such file or directory (os error 2)): start it, or check the host and port, or the socket's path"
        )
    );
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri: NbdUri = format!("nbd://127.0.0.1:{port}/a").parse().unwrap();
    let text = Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string();
    assert!(text.contains(": no server answers (Connection refused"), "{text}");
    // Somebody who speaks something else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri: NbdUri = format!("nbd://{}/a", listener.local_addr().unwrap()).parse().unwrap();
    for (says, line) in [
        (
            &b"220 mail.example.com ESMTP\r\n"[..],
            "what answers there speaks no NBD that we know (it doesn't say",
        ),
        (b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53", "the server speaks only NBD's old style: "),
        (b"NBDMAGICIHAVEOPT\0\0", "the server speaks only NBD's old style: "),
        (b"NBDMAGIC", "the connection ends before the export is open (failed to fill whole buffer): "),
    ] {
        let text = std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(says).unwrap());
            Image::open_nbd(&uri, Access::ReadOnly).unwrap_err().to_string()
        });
        assert!(text.contains(line), "{text}");
    }
}
