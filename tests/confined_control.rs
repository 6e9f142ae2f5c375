//! Changes to a server that has given up its rights: all that `kagero target` asks for, as an unprivileged user and under the filter of system
//! calls. In network namespaces, which takes root; without, these tests say so and pass.

#[path = "../aoe/target/tests/client/mod.rs"]
mod client;
#[path = "../aoe/link/tests/namespace/mod.rs"]
mod namespace;
mod serving;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, MacAddress};
use namespace::{ip, with_cable};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serving::{DISK, PATIENCE, Place, Serving, link, set_config};

const NOBODY: u32 = 65_534;

/// Images of 1 MiB and the folders `state` and `overlays`, all of it the property of `owner`.
fn place(owner: u32) -> Place {
    place_on(&std::env::temp_dir(), owner)
}

fn place_on(folder: &Path, owner: u32) -> Place {
    let place = Place::on(folder);
    File::create(place.path("golden.img")).unwrap().set_len(1 << 20).unwrap();
    fs::create_dir(place.path("overlays")).unwrap();
    for name in ["", "a.img", "b.img", "golden.img", "state", "overlays"] {
        chown(place.path(name), Some(owner), Some(owner)).unwrap();
    }
    fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

/// Every thread has the filter, and no right but these.
#[track_caller]
fn assert_confined(serving: &Serving, uid: u32, capabilities: &str) {
    let threads = fs::read_dir(format!("/proc/{}/task", serving.0.id())).unwrap();
    let status: Vec<String> =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap()).collect();
    // Those of the network, of signals, of control, and of metrics.
    assert!(status.len() >= 4, "{}", status.len());
    for status in status {
        for line in
            [format!("Uid:\t{uid}\t{uid}"), format!("CapEff:\t{capabilities}"), "Seccomp:\t2\n".into()]
        {
            assert!(status.contains(&line), "{line}: {status}");
        }
    }
}

/// Every kind of change, over and over.
fn change(place: &Place, owner: u32) {
    let mac = MacAddress(link().mac());
    let address = |slot| Address { shelf: 7, slot };
    for round in 0..3u8 {
        place.target(&format!("add 7.2=b.img,allow={mac},interface=kgv0"));
        let (mut b, disk) = Client::attach(link(), address(2));
        assert_eq!(disk.sectors, 2_048);
        b.write(0, &[round; 4096], true).unwrap();
        // Often enough that data goes from the page cache straight into frames.
        (0..40).for_each(|_| assert_eq!(b.read(0, 256).unwrap()[..4096], [round; 4096]));
        place.target("resize 7.2 512K --shrink");
        assert!(b.read(1_536, 256).is_err());
        assert_eq!(b.read(768, 256).unwrap(), [0; 256 * 512]);
        place.target("resize 7.2 1M");
        assert_eq!(b.read(1_536, 256).unwrap(), [0; 256 * 512]);

        place.target("add 7.3=golden.img,overlay=overlays");
        let (mut golden, _) = Client::attach(link(), address(3));
        golden.write(8, &[round + 1; 512], false).unwrap();
        golden.carry_out(kagero_devices::storage::Operation::Flush, Vec::new()).unwrap();
        assert_eq!(golden.read(8, 1).unwrap(), [round + 1; 512]);
        assert_eq!(fs::metadata(place.path(&format!("overlays/{mac}.overlay"))).unwrap().uid(), owner);

        set_config(&mut link(), &[b'0' + round]);
        assert_eq!(fs::metadata(place.path("state/7.1.json")).unwrap().uid(), owner);

        let mut stream = TcpStream::connect("127.0.0.1:9100").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("kagero_target_size_bytes{export=\"7.3\"} 1048576\n"), "{page}");

        assert!(place.target("list").contains("overlays in "));
        place.target("remove 7.2 7.3 --forget");
        // Past the page cache, where the file system does that.
        let flags = OFlags::RDONLY | OFlags::DIRECT;
        if rustix::fs::open(place.path("b.img"), flags, Mode::empty()).is_ok() {
            place.target("add 7.4=b.img,direct");
            let (mut b, _) = Client::attach(link(), address(4));
            b.write(16, &[round; 4096], false).unwrap();
            assert_eq!(b.read(16, 8).unwrap(), [round; 4096]);
            place.target("remove 7.4");
        }
    }
}

fn changes_are_made(folder: &Path, owner: u32, capabilities: &str, user: &str) {
    with_cable(|| {
        ip("link set dev lo up");
        let place = place_on(folder, owner);
        let words = format!("--metrics 127.0.0.1:9100{user}");
        let serving = place.serve(&words);
        assert_confined(&serving, owner, capabilities);
        let socket = fs::metadata(place.path("c.sock")).unwrap();
        assert_eq!((socket.uid(), socket.permissions().mode() & 0o777), (owner, 0o600));
        change(&place, owner);
        assert_confined(&serving, owner, capabilities);
        serving.signal(Signal::KILL);
        drop(serving);

        // What it left is the next one's.
        let serving = place.serve(&words);
        assert_eq!(place.json("list --json")["exports"][0]["settings"]["config"], "2");
        place.target("add 7.3=golden.img,overlay=overlays");
        let (mut golden, _) = Client::attach(link(), Address { slot: 3, ..DISK });
        assert_eq!(golden.read(8, 1).unwrap(), [3; 512]);
        let (code, said) = serving.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(!place.path("c.sock").exists(), "left behind");
    });
}

#[test]
fn an_unprivileged_user_changes_what_it_serves() {
    changes_are_made(&std::env::temp_dir(), NOBODY, "0000000000000000", " --user nobody");
}

/// On tmpfs, whose files are asked about in other ways.
#[test]
fn root_without_its_powers_changes_what_it_serves() {
    changes_are_made("/dev/shm".as_ref(), 0, "0000000000000002", "");
}

#[test]
fn what_the_user_may_not_open_is_said_and_serving_goes_on() {
    with_cable(|| {
        let place = place(NOBODY);
        chown(place.path("b.img"), Some(0), Some(0)).unwrap();
        fs::set_permissions(place.path("b.img"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(place.path("theirs")).unwrap();
        let serving = place.serve("--user nobody");
        let at = |name: &str| place.path(name).display().to_string();
        place.refused(
            "target --control c.sock add 7.2=b.img",
            &format!("no permission to write disk image {}: change its mode or owner", at("b.img")),
        );
        place.refused(
            "target --control c.sock add 7.2=golden.img,overlay=theirs",
            &format!(
                "{}: user nobody can't make files there: Permission denied (os error 13): `chown nobody {0}`, with every folder above open to nobody",
                at("theirs")
            ),
        );
        assert_eq!(place.json("list --json")["exports"].as_array().unwrap().len(), 1);
        assert_eq!(serving.end().0, Some(0));
    });
}
