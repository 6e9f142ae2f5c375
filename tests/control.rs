//! `kagero serve` while it runs: what `kagero target` asks of it, what survives it, and how it ends. In network namespaces, which takes root;
//! without, these tests say so and pass.

#[path = "../aoe/target/tests/client/mod.rs"]
mod client;
#[path = "../aoe/link/tests/namespace/mod.rs"]
mod namespace;
mod serving;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Output};

use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{self, Address, Config, ConfigCommand, Header, MacAddress};
use kagero_link::PacketLink;
use kagero_target::{Access, Image};
use namespace::{ip, with_cable};
use rustix::fs::{CWD, FileType, Mode, OFlags, inotify};
use rustix::process::Signal;
use serving::{DISK, PATIENCE, Place, link, set_config};

#[test]
fn disks_come_change_and_go_while_one_is_read() {
    with_cable(|| {
        let place = Place::new();
        fs::write(place.path("a.img"), vec![7; 1 << 20]).unwrap();
        let serving = place.serve("");
        let (mut reader, _) = Client::attach(link(), DISK);
        let mut read = || assert_eq!(reader.read(0, 256).unwrap(), vec![7; 256 * 512]);
        for _ in 0..3 {
            read();
            let a = place.path("b.img").display().to_string();
            assert_eq!(place.target("add 7.2=b.img"), format!("7.2 is {a}, 1,048,576 bytes\n"));
            read();
            assert_eq!(
                place.target("resize 7.2 2M"),
                "7.2 has 2,097,152 bytes now; a client that uses it learns that when it looks again (Linux: aoe-revalidate e7.2)\n"
            );
            let (_, disk) = Client::attach(link(), Address { shelf: 7, slot: 2 });
            assert_eq!(disk.sectors, 4_096);
            let list = place.json("list --json");
            let sizes: Vec<_> =
                list["exports"].as_array().unwrap().iter().map(|export| &export["bytes"]).collect();
            assert_eq!(sizes, [1 << 20, 2 << 20]);
            assert_eq!(list["exports"][1]["image"], a);
            assert!(Image::open(&place.path("b.img"), Access::ReadWrite).is_err(), "locked");
            assert_eq!(place.target("remove 7.2"), "7.2 is not served any more\n");
            Image::open(&place.path("b.img"), Access::ReadWrite).unwrap();
            File::options().write(true).open(place.path("b.img")).unwrap().set_len(1 << 20).unwrap();
            read();
        }
        let stats = place.json("stats --json");
        assert_eq!(stats["exports"].as_array().unwrap().len(), 1);
        assert!(stats["exports"][0]["bytes_read"].as_u64().unwrap() >= 9 * 256 * 512, "{stats}");
        // What was read of the other counts on, too.
        let total = stats["total"]["bytes_read"].as_u64();
        assert!(total >= stats["exports"][0]["bytes_read"].as_u64(), "{stats}");
        assert_eq!(place.target("remove 7.1 --forget"), "7.1 is not served any more\n");
        assert_eq!(place.target("list"), "nothing is served\n");
        let (code, said) = serving.end();
        assert_eq!(code, Some(0), "{said}");
    });
}

#[test]
fn what_was_set_survives_sigkill() {
    with_cable(|| {
        let place = Place::new();
        for round in 0..5 {
            // The socket of the one before is still there: it was killed.
            assert_eq!(place.path("c.sock").exists(), round > 0);
            let serving = place.serve("");
            let expected = if round == 0 { String::new() } else { format!("round {}", round - 1) };
            assert_eq!(place.json("list --json")["exports"][0]["settings"]["config"], expected);
            let mut link = link();
            set_config(&mut link, format!("round {round}").as_bytes());
            serving.signal(Signal::KILL);
        }
        drop(place.serve(""));
        fs::write(place.path("state/7.1.json"), "[]").unwrap();
        place.refused(
            "serve --interface kgv0 --state state --control c.sock 7.1=a.img",
            "settings of clients in state/7.1.json are damaged: invalid length 0, expected struct StoredSettings with 3 elements at line 1 column 2; \
             mend the file, or take it away to begin without any",
        );
    });
}

#[test]
fn a_station_that_never_stops_setting_holds_up_nobody() {
    with_cable(|| {
        let place = Place::new();
        let serving = place.serve("");
        let (mut reader, _) = Client::attach(link(), DISK);
        let mut flood = link();
        let mac = MacAddress(flood.mac());
        for tag in 0..3_000u32 {
            let header = Header::request(mac, MacAddress::BROADCAST, DISK, wire::Command::Config, tag);
            let string = tag.to_be_bytes();
            let query = Config { command: ConfigCommand::ForceSet, string: &string, ..Config::query() };
            flood.transmit(|out| wire::encode(out, &header, |out| query.encode(out)));
            if tag % 100 == 0 {
                reader.read(0, 16).unwrap();
            }
        }
        // And it is heard itself, when it asks again.
        set_config(&mut flood, b"at last");
        assert!(fs::read_to_string(place.path("state/7.1.json")).unwrap().contains("at last"));
        assert_eq!(serving.end().0, Some(0));
    });
}

#[test]
fn garbage_on_the_socket_hurts_nobody() {
    with_cable(|| {
        let place = Place::new();
        let serving = place.serve("");
        let meta = fs::metadata(place.path("c.sock")).unwrap();
        assert_eq!((meta.file_type().is_socket(), meta.permissions().mode() & 0o777), (true, 0o600));
        let connect = || {
            let stream = UnixStream::connect(place.path("c.sock")).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let long = [b'['; 70 << 10];
        for garbage in [
            &b"list\n"[..],
            b"\xff\xfe\0\n",
            b"{\"do\":\"sing\"}\n",
            b"{\"do\":\"add\",\"export\":\"7.1\"}\n",
            b"{\"do\":\"remove\",\"address\":\"7.1\",\"forget\":3}\n",
            b"{\"do\":\"resize\",\"address\":\"7.1\",\"bytes\":-1}\n",
            b"{\"do\":\"add\",\"export\":\"7.3=b.img\"}",
            b"GET /metrics HTTP/1.1\r\n\r\n",
            &long,
        ] {
            let mut stream = connect();
            // A server that has heard enough hangs up.
            let _ = stream.write_all(garbage);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::new();
            let _ = BufReader::new(stream).read_line(&mut answer);
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["error"]["code"], 2, "{answer}");
        }
        // Some who say nothing, or half of something, for ever.
        let silent: Vec<_> = (0..40).map(|_| connect()).collect();
        silent.last().unwrap().write_all(b"{\"do\":").unwrap();
        // Two requests at once, and an empty line.
        let mut stream = connect();
        stream.write_all(b"{\"do\":\"stats\"}\n\n{\"do\":\"list\"}\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert!(lines.next().unwrap().unwrap().contains("\"frames\":"));
        assert!(lines.next().unwrap().unwrap().contains("KAGERO-00007-001"));
        assert!(place.target("list").contains("7.1"));
        drop(silent);
        assert_eq!(serving.end().0, Some(0));
    });
}

#[test]
fn metrics_can_be_scraped() {
    with_cable(|| {
        ip("link set dev lo up");
        let place = Place::new();
        let serving = place.serve("--metrics 127.0.0.1:9100");
        let (mut client, _) = Client::attach(link(), DISK);
        client.write(0, &[1; 4096], false).unwrap();
        let scrape = || {
            let mut stream = TcpStream::connect("127.0.0.1:9100").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            page
        };
        // One that never finishes its head is in nobody's way.
        let mut slow = TcpStream::connect("127.0.0.1:9100").unwrap();
        slow.write_all(b"GET /met").unwrap();
        let page = scrape();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(page.starts_with(head), "{page}");
        assert!(page.contains("\nkagero_target_written_bytes_total{export=\"7.1\"} 4096\n"), "{page}");
        assert!(page.contains("\nkagero_target_size_bytes{export=\"7.1\"} 1048576\n"), "{page}");
        // The same over the control socket, for a file.
        let body = page.split_once("\r\n\r\n").unwrap().1;
        let steady = |page: &str| -> String { page.lines().filter(|line| line.contains("7.1")).collect() };
        assert_eq!(steady(body), steady(&place.target("stats --prometheus")));
        place.refused(
            "serve --interface kgv0 7.2=b.img --control none --state none --metrics 127.0.0.1:9100",
            "--metrics: can't listen on 127.0.0.1:9100: Address already in use (os error 98): give another address or port",
        );
        assert_eq!(serving.end().0, Some(0));
    });
}

#[test]
fn one_socket_and_one_folder_have_one_server() {
    with_cable(|| {
        let place = Place::new();
        place.refused(
            "target --control c.sock list",
            "c.sock: no server listens there: start `kagero serve`, or name its socket with --control",
        );
        let serving = place.serve("");
        let serve = "serve --interface kgv0 7.2=b.img";
        place.refused(
            &format!("{serve} --state none --control c.sock"),
            "c.sock: no control socket can be there: another server listens there: \
             end that first, or give this one a socket of its own with --control",
        );
        place.refused(
            &format!("{serve} --state state --control none"),
            "folder state for the settings of clients is another server's: give each its own with --state",
        );
        place.refused(
            &format!("{serve} --state none --control a.img"),
            "a.img: no control socket can be there: something else has this name: give another path with --control",
        );
        place.refused(
            &format!("{serve} --state none --control no/c.sock"),
            "no/c.sock: no control socket can be there: there is no such folder: make it with `mkdir`, or give another path",
        );
        let long = "c".repeat(108);
        place.refused(
            &format!("{serve} --state none --control {long}"),
            &format!(
                "{long}: no control socket can be there: the path is too long: give one of 107 bytes at most"
            ),
        );
        place.refused(
            &format!("{serve} --control none --state none/such"),
            "no folder none/such for the settings of clients: make it with `mkdir`, or name another with --state",
        );
        // The first has noticed nothing.
        assert!(place.target("list").contains("7.1"));
        serving.signal(Signal::KILL);
        drop(serving);
        place.refused(
            "target --control c.sock list",
            "c.sock: the server that listened there has ended: start `kagero serve` again",
        );
        let serving = place.serve("");
        assert_eq!(serving.end().0, Some(0));
        assert!(!place.path("c.sock").exists(), "left behind");
    });
}

#[test]
fn what_can_not_be_changed_is_said_in_one_line() {
    with_cable(|| {
        let place = Place::new();
        File::create(place.path("odd.img")).unwrap().set_len(1000).unwrap();
        let serving = place.serve("");
        for (words, line) in [
            (
                "add 7.1=b.img",
                "7.1: @/a.img is served there already: remove it first, or give another address",
            ),
            (
                "add 7.2=a.img",
                "disk image @/a.img is in use by another disk of this process: end that first, or use a copy",
            ),
            ("add 7.2=no.img", "@/no.img: no such image: check the path"),
            (
                "add 7.2=odd.img",
                "@/odd.img: not a multiple of 512 bytes (1,000): \
                 if it is a raw disk image, `truncate -s %512 FILE` fills up its last sector",
            ),
            ("add 7.2=b.img,overlay=no", "no folder @/no for overlays: make it with `mkdir`"),
            (
                "add b.img",
                "ADDRESS=IMAGE: \"b.img\" is not an export: write address=image, as 7.1=debian.img",
            ),
            (
                "add 7.2=b.img,interface=eth9",
                "7.2: interface eth9 is not served: add --interface eth9; served is kgv0",
            ),
            (
                "add 7.2=b.img,allow=ff:ff:ff:ff:ff:ff",
                "ADDRESS=IMAGE: \"ff:ff:ff:ff:ff:ff\" is every station, and no frame comes from that: allow each station by its own address",
            ),
            (
                "add 7.2=b.img,format=qcow2,direct",
                "disk image @/b.img can't be direct: it is no raw image; leave `direct` out",
            ),
            ("remove 7.2", "no disk 7.2 is served: `kagero target list` shows those that are"),
            (
                "remove 7",
                "ADDRESS: \"7\" is not an AoE address: write shelf.slot, as 7.1, with a shelf of 0 to 65534 and a slot of 0 to 254",
            ),
            ("resize 7.2", "no disk 7.2 is served: `kagero target list` shows those that are"),
            (
                "resize 7.1 512K",
                "disk 7.1 would shrink from 1048576 to 524288 bytes: add --shrink if what lies behind may be lost",
            ),
            ("resize 7.1 2", "SIZE: \"2\" is not a size: write it with its unit, as 512M or 2G"),
            ("stats --json --prometheus", "--json: can't be used with --prometheus: leave out one of them"),
            ("lst", "lst: unknown command: did you mean list?"),
        ] {
            place.refused(&format!("target --control c.sock {words}"), line);
        }
        assert_eq!(place.json("list --json")["exports"].as_array().unwrap().len(), 1);
        assert!(place.target("resize 7.1 512K --shrink").starts_with("7.1 has 524,288 bytes now; "));
        assert_eq!(fs::metadata(place.path("a.img")).unwrap().len(), 512 << 10);
        assert_eq!(serving.end().0, Some(0));
    });
}

#[test]
fn sigterm_loses_nothing_that_was_answered() {
    with_cable(|| {
        let place = Place::new();
        for round in 1..4u8 {
            let notify = UnixDatagram::bind(place.path("notify")).unwrap();
            notify.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut command =
                place.command("serve --interface kgv0 --state state --control c.sock 7.1=a.img");
            command.env("NOTIFY_SOCKET", place.path("notify"));
            let mut serving = place.start(command);
            let hear = || {
                let mut word = [0; 64];
                let length = notify.recv(&mut word).unwrap();
                String::from_utf8_lossy(&word[..length]).trim_end().to_owned()
            };
            assert_eq!(hear(), "READY=1");

            let (mut client, _) = Client::attach(link(), DISK);
            let submit = |client: &mut Client<PacketLink>, i: u32| {
                let (lba, sectors) = (u64::from(i) * 8, 8);
                let operation = kagero_devices::storage::Operation::Write { lba, sectors, durable: false };
                client.submit(operation, vec![round; 8 * 512])
            };
            // More than a window, of which some are answered.
            let mut tags: Vec<_> = (0..64).map(|i| submit(&mut client, i)).collect();
            let rest = tags.split_off(8);
            for tag in tags {
                client.finish(tag).unwrap();
            }
            serving.signal(Signal::TERM);
            let said = serving.said();
            assert_eq!(serving.0.wait().unwrap().code(), Some(0), "{said}");
            assert!(said.ends_with('\n') && said.contains("INFO ended"), "{said}");
            assert_eq!(hear(), "STOPPING=1");

            // What came back before the end, whatever the window held.
            let answered = (8..).zip(rest).filter(|(_, tag)| client.has_ended(*tag)).map(|(i, _)| i);
            let image = fs::read(place.path("a.img")).unwrap();
            for i in (0..8).chain(answered) {
                assert_eq!(image[i * 4096..][..4096], [round; 4096], "write {i} of round {round}");
            }
            assert!(!place.path("c.sock").exists());
            fs::remove_file(place.path("notify")).unwrap();
        }
    });
}

/// The folder for settings is stuck: a pipe that is full stands where a file is to be written.
#[test]
fn a_second_signal_ends_at_once() {
    with_cable(|| {
        let place = Place::new();
        let pipe = place.path("state/7.1.json.new");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let full = rustix::fs::open(&pipe, flags, Mode::empty()).unwrap();
        while rustix::io::write(&full, &[0; 4096]).is_ok() {}
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, &pipe, inotify::WatchFlags::OPEN).unwrap();
        let mut serving = place.serve("");
        let mut link = link();
        let header =
            Header::request(MacAddress(link.mac()), MacAddress::BROADCAST, DISK, wire::Command::Config, 1);
        let query = Config { command: ConfigCommand::ForceSet, string: b"stuck", ..Config::query() };
        link.transmit(|out| wire::encode(out, &header, |out| query.encode(out)));
        // It has opened the pipe, and writes to it for ever.
        rustix::io::read(&watch, &mut [0; 256]).unwrap();
        serving.signal(Signal::TERM);
        serving.signal(Signal::INT);
        let said = serving.said();
        assert!(said.contains("second signal; ended at once"), "{said}");
        // Two that come together may be seen in any order.
        assert!(matches!(serving.0.wait().unwrap().code(), Some(130 | 143)));
    });
}

#[test]
fn the_service_says_what_the_command_takes() {
    let unit = include_str!("../contrib/kagero-serve.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/kagero"));
    // With a configuration, it gets as far as its interface.
    let place = Place::new();
    let config = place.path("serve.toml").display().to_string();
    fs::write(&config, "interface = \"nowhere0\"\nexport = \"7.1=a.img\"\n").unwrap();
    let words: Vec<_> =
        words.map(|word| if word == "/etc/kagero/serve.toml" { &*config } else { word }).collect();
    assert!(words.contains(&&*config));
    let Output { status, stderr, .. } = place.command(&words.join(" ")).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(said.starts_with("kagero: no interface nowhere0") && said.lines().count() == 1, "{said}");
    assert_eq!(status.code(), Some(2));

    // What systemd itself has to say, where it is installed.
    let installed = place.path("kagero-serve.service");
    fs::write(&installed, unit.replace("/usr/local/bin/kagero", env!("CARGO_BIN_EXE_kagero"))).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&installed).output() {
        Ok(Output { status, stderr, .. }) => {
            assert_eq!((&*String::from_utf8_lossy(&stderr), status.code()), ("", Some(0)));
        }
        Err(error) => eprintln!("not verified by systemd-analyze: {error}"),
    }
}
