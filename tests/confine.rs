//! Who may come in, and what a server gives up: on networks of a test's own, which takes root; without, these tests say so and pass.

#[path = "../aoe/target/tests/client/mod.rs"]
mod client;
#[path = "../aoe/link/tests/namespace/mod.rs"]
mod namespace;
#[path = "../aoe/target/tests/qemu_nbd/mod.rs"]
mod qemu_nbd;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, MacAddress};
use kagero_link::PacketLink;
use kagero_link::packet::Options;
use kagero_target::Access;
use namespace::{ip, with_cable};
use qemu_nbd::QemuNbd;
use rustix::process::{Pid, Signal, kill_process};

const NOBODY: u32 = 65_534;

/// A folder that everyone may come into, with images `a.img` to `c.img` of 1 MiB and a folder `overlays`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for name in ["a.img", "b.img", "c.img"] {
            fs::write(place.path(name), vec![0; 1 << 20]).unwrap();
        }
        fs::create_dir(place.path("overlays")).unwrap();
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn kagero(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kagero"));
        command
            .args(words.split(' '))
            .current_dir(self.0.path())
            .env_remove("KAGERO_LOG")
            .stdin(Stdio::null());
        command
    }

    /// `kagero serve` with these words, once it serves.
    fn serve(&self, words: &str) -> Server {
        self.serving(self.kagero(&format!("serve --control none --state none {words}")))
    }

    fn serving(&self, mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let found = lines.any(|line| line.starts_with("serving on "));
        let server = Server(child);
        assert!(found);
        server
    }

    /// `kagero`, begun as another user with these options of setpriv(1). Wherever the build is, that user may not run it from there.
    fn as_nobody(&self, options: &[&str]) -> Command {
        fs::copy(env!("CARGO_BIN_EXE_kagero"), self.path("kagero")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534"]).args(options).arg("./kagero");
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// The line with which a command is refused before anything is made.
    fn refused(&self, words: &str) -> String {
        let names = || fs::read_dir(self.0.path()).unwrap().count();
        let before = names();
        let output = self.kagero(words).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len(), names()), (Some(2), 0, before));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The addresses that `kagero discover` finds.
    fn found(&self, interface: &str) -> Vec<String> {
        let output = self.kagero(&format!("discover --interface {interface} --timeout 1s")).output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        table.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

struct Server(Child);

impl Server {
    /// A field of each thread's status, without the blanks around it.
    fn status(&self, field: &str) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        threads
            .map(|thread| {
                let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
                let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
                value.unwrap().trim().to_owned()
            })
            .collect()
    }

    #[track_caller]
    fn assert_status(&self, field: &str, value: &str) {
        let threads = self.status(field);
        assert!(threads.len() >= 2 && threads.iter().all(|thread| thread == value), "{field}: {threads:?}");
    }

    /// Ends it with SIGTERM.
    fn end(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again for up to ten seconds.
fn eventually(happened: impl Fn() -> bool) -> bool {
    (0..1_000).any(|_| {
        let now = happened();
        if !now {
            thread::sleep(Duration::from_millis(10));
        }
        now
    })
}

#[test]
fn several_threads_serve_without_rights() {
    with_cable(|| {
        let place = Place::new();
        chown(place.path("a.img"), Some(NOBODY), None).unwrap();
        let server = place.serve("--interface kgv0 --user nobody --threads 3 7.1=a.img");
        // Each end of the cable is one station, whatever thread that is.
        let (mut client, _) = Client::attach(
            PacketLink::open("kgv1", Options::default()).unwrap(),
            Address { shelf: 7, slot: 1 },
        );
        client.write(8, &[7; 4_096], true).unwrap();
        assert_eq!(client.read(8, 8).unwrap(), [7; 4_096]);
        // A thread may still be about to begin.
        let threads = || server.status("Name").iter().filter(|name| *name == "aoe-target").count();
        assert!(eventually(|| threads() == 2));
        server.assert_status("Seccomp", "2");
        assert_eq!(server.end().code(), Some(0));
    });
}

#[test]
fn another_user_serves_on_and_has_no_rights() {
    with_cable(|| {
        let place = Place::new();
        chown(place.path("overlays"), Some(NOBODY), None).unwrap();
        fs::set_permissions(place.path("b.img"), fs::Permissions::from_mode(0o600)).unwrap();
        let words =
            "--interface kgv0 --user nobody --pcap overlays/x.pcap 7.1=a.img,overlay=overlays 7.2=b.img";
        let server = place.serve(words);
        for ids in ["Uid", "Gid"] {
            server.assert_status(ids, "65534\t65534\t65534\t65534");
        }
        server.assert_status("Groups", "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            server.assert_status(set, "0000000000000000");
        }
        server.assert_status("NoNewPrivs", "1");
        server.assert_status("Seccomp", "2");

        // What was opened as root is still open, and what clients make is the user's.
        let data = vec![0x5a; 4_096];
        for slot in [1, 2] {
            let link = PacketLink::open("kgv1", Options::default()).unwrap();
            let (mut client, _) = Client::attach(link, Address { shelf: 7, slot });
            client.write(8, &data, true).unwrap();
            client.carry_out(kagero_devices::storage::Operation::Flush, Vec::new()).unwrap();
            assert_eq!(client.read(8, 8).unwrap(), data);
            if slot == 1 {
                let overlay = place.path(&format!("overlays/{}.overlay", MacAddress(client.link.mac())));
                assert_eq!(fs::metadata(overlay).unwrap().uid(), NOBODY);
            }
        }
        assert_eq!(fs::metadata(place.path("overlays/x.pcap")).unwrap().uid(), NOBODY);
        assert_eq!(&fs::read(place.path("b.img")).unwrap()[4_096..8_192], data);
        // An interface that goes down and comes up again needs no rights.
        ip("link set dev kgv0 down");
        ip("link set dev kgv0 up");
        assert_eq!(place.found("kgv1"), ["7.1", "7.2"]);
        assert_eq!(server.end().code(), Some(0));
    });
}

/// By a socket, by TCP, and as a base.
#[test]
fn an_nbd_server_that_comes_back_is_reached_without_rights() {
    with_cable(|| {
        ip("link set dev lo up");
        let place = Place::new();
        chown(place.path("overlays"), Some(NOBODY), None).unwrap();
        let mut sources = [
            QemuNbd::on_socket(&place.path("a.img")),
            QemuNbd::on_port(&place.path("b.img")),
            QemuNbd::on_port(&place.path("c.img")),
        ];
        let [a, b, c] = sources.each_ref().map(|source| source.uri().to_string());
        let words = format!("--interface kgv0 --user nobody 7.1={a} 7.2={b} 7.3={c},overlay=overlays");
        assert_eq!(
            place.refused(&format!("serve {words}")),
            format!(
                "kagero: NBD export {a}: no permission to reach the server (Permission denied (os error 13)): the socket has to \
                 be open for writing, and each folder above it for search, to the user that serves\n"
            )
        );
        let open_socket = || {
            fs::set_permissions(place.path("nbd.sock"), fs::Permissions::from_mode(0o666)).unwrap();
        };
        open_socket();
        let server = place.serve(&words);
        server.assert_status("Uid", "65534\t65534\t65534\t65534");
        server.assert_status("Seccomp", "2");

        let data = vec![0x5a; 4_096];
        for (slot, source) in (1..).zip(&mut sources) {
            let link = PacketLink::open("kgv1", Options::default()).unwrap();
            let (mut client, _) = Client::attach(link, Address { shelf: 7, slot });
            client.write(8, &data, false).unwrap();
            source.kill();
            source.start_again();
            source.wait();
            open_socket();
            assert_eq!(client.read(8, 8).unwrap(), data);
            assert_eq!(client.read(800, 8).unwrap(), [0; 4_096]);
            client.carry_out(kagero_devices::storage::Operation::Flush, Vec::new()).unwrap();
        }
        for (source, expected) in sources.iter().zip([0x5a, 0x5a, 0]) {
            let mut data = [1; 4_096];
            source.open(Access::ReadOnly).read(4_096, &mut data).unwrap();
            assert_eq!(data, [expected; 4_096], "{}", source.uri());
        }
        assert_eq!(server.end().code(), Some(0));
    });
}

#[test]
fn root_keeps_the_way_to_files_and_nothing_else() {
    with_cable(|| {
        let place = Place::new();
        chown(place.path("overlays"), Some(NOBODY), None).unwrap();
        let server = place.serve("--interface kgv0 --seccomp log 7.1=a.img,overlay=overlays");
        server.assert_status("Uid", "0\t0\t0\t0");
        for set in ["CapEff", "CapPrm"] {
            server.assert_status(set, "0000000000000002");
        }
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            server.assert_status(set, "0000000000000000");
        }
        server.assert_status("NoNewPrivs", "1");
        server.assert_status("Seccomp", "2");
        drop(server);
        place.serve("--interface kgv0 --seccomp off 7.1=a.img").assert_status("Seccomp", "0");
    });
}

/// As a service manager may start it.
#[test]
fn who_is_not_root_needs_one_capability_and_gives_it_up() {
    with_cable(|| {
        let place = Place::new();
        let net_raw = ["--clear-groups", "--inh-caps", "-all,+net_raw", "--ambient-caps", "-all,+net_raw"];
        let mut command = place.as_nobody(&net_raw);
        command.args("serve --control none --interface kgv0 --user nobody 7.1=a.img,read-only".split(' '));
        let server = place.serving(command);
        server.assert_status("Uid", "65534\t65534\t65534\t65534");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            server.assert_status(set, "0000000000000000");
        }
        server.assert_status("Seccomp", "2");
        assert_eq!(place.found("kgv1"), ["7.1"]);
    });
}

#[test]
fn who_is_not_meant_finds_nothing() {
    with_cable(|| {
        let place = Place::new();
        ip("link set dev lo up");
        let mac = MacAddress(kagero_link::Interface::find("kgv1").unwrap().mac);
        let stranger = "02:00:00:00:00:01";
        let _server = place.serve(&format!(
            "--interface kgv0 --interface lo 7.1=a.img,interface=lo 7.2=b.img,allow={stranger} 7.3=c.img,allow={stranger}+{mac}"
        ));
        assert_eq!(place.found("kgv1"), ["7.3"]);
        assert_eq!(place.found("lo"), ["7.1"]);
    });
}

#[test]
fn what_can_not_be_is_said_before_anything_is_made() {
    with_cable(|| {
        let place = Place::new();
        ip("link property add dev kgv0 altname first-cable");
        let serve = |words: &str| {
            place
                .refused(&format!("serve --control none --state none --pcap x.pcap --interface kgv0 {words}"))
        };
        assert_eq!(
            serve("--interface first-cable 7.1=a.img"),
            "kagero: --interface: kgv0 and first-cable are the same interface: name it once\n"
        );
        assert_eq!(
            serve("--user nobody 7.1=a.img,overlay=overlays"),
            "kagero: overlays: user nobody can't make files there: Permission denied (os error 13): \
             `chown nobody overlays`, with every folder above open to nobody\n"
        );
        assert_eq!(
            serve("--user nobody 7.1=a.img"),
            "kagero: cannot create capture file x.pcap: Permission denied (os error 13)\n"
        );
        let mut command = place.as_nobody(&["--clear-groups"]);
        command.args(["serve", "--interface", "kgv0", "--user", "daemon", "7.1=a.img"]);
        assert_eq!(
            String::from_utf8(command.output().unwrap().stderr).unwrap(),
            "kagero: --user: only root can become daemon: start as root, or leave it out\n"
        );
    });
}
