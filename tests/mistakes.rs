//! What people do wrong, as they see it: one line that names the thing and the mend, exit code 2, and nothing half-done.
//!
//! Interfaces are made in network namespaces and `/dev` is hidden in mount namespaces, which takes root; without, these tests say
//! so and pass.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kagero_integration::made_up::MadeUp;
use kagero_integration::network::Namespace;
use kagero_target::{Access, Identity, Image, Overlay};

/// Every file that a run can be told to write.
const OUTPUTS: [(&str, &str); 5] = [
    ("--console", "boot.log"),
    ("--report", "run.json"),
    ("--trace", "trace.txt"),
    ("--pcap", "run.pcap"),
    ("--firmware-log", "bios.log"),
];

/// Another user than root, on every machine.
const NOBODY: &str = "65534";

/// A folder with an image in it, and what else a test puts there.
struct Place {
    folder: tempfile::TempDir,
    /// Interfaces of its own, once there are any.
    network: Option<Namespace>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder, network: None };
        place.file("a.img", vec![0; 1 << 20]);
        // Other users may come in; what they find is the test's matter.
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        place
    }

    /// With a cable between the interfaces `near` and `far`.
    fn with_cable(mtu: u32) -> Self {
        let network = Namespace::new().unwrap();
        network.add_cable("near", "far", mtu).unwrap();
        Self { network: Some(network), ..Self::new() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kagero(&self, words: &[&str]) -> Command {
        let program = OsStr::new(env!("CARGO_BIN_EXE_kagero"));
        self.command(&[program], words)
    }

    /// `kagero`, begun by another program.
    fn command(&self, starter: &[&OsStr], words: &[&str]) -> Command {
        let mut command = Command::new(starter[0]);
        command.args(&starter[1..]).args(words).current_dir(self.folder.path()).env_remove("KAGERO_LOG");
        command.stdin(Stdio::null());
        if let Some(network) = &self.network {
            network.enter(&mut command);
        }
        command
    }

    /// `kagero run` that is to write every file it can write. It ends by itself where it isn't refused.
    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.kagero(&["run", "--memory", "64M", "--timeout", "60s"]);
        command.args(words).args(OUTPUTS.iter().flat_map(|(option, file)| [option, file]));
        command
    }

    /// What is in the folder.
    fn content(&self) -> BTreeMap<OsString, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap_or_default())).collect()
    }

    /// Asserts that the command says this line and nothing else, exits with 2, and leaves everything as it was.
    #[track_caller]
    fn refused(&self, mut command: Command, line: &str) {
        let before = self.content();
        let output = command.output().unwrap();
        let (said, shown) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert_eq!((&*said, &*shown), (&*format!("kagero: {line}\n"), ""));
        assert_eq!(output.status.code(), Some(2));
        assert!(before == self.content(), "left behind: {:?}", self.content().keys());
    }

    /// `kagero serve a.img` on `interface`, once it serves.
    fn serving(&self, interface: &str) -> Serving {
        let mut command = self.kagero(&[
            "serve",
            "--interface",
            interface,
            "--control",
            "none",
            "--state",
            "none",
            "7.1=a.img",
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let found = lines.into_iter().any(|line| line.starts_with("serving on "));
        let serving = Serving(child);
        assert!(found);
        serving
    }
}

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this is root; says so when it isn't.
fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: this makes namespaces, which takes root");
    }
    root
}

/// Whether a run gets as far as its search for targets here.
fn can_run() -> bool {
    let can = kagero::kvm::check().is_ok() && kagero::config::default_firmware().is_ok();
    if !can {
        eprintln!("skipped: this takes /dev/kvm and the package seabios");
    }
    can
}

/// Firmware that is never begun, where the machine may have no SeaBIOS.
fn firmware(place: &Place) {
    place.file("bios.bin", vec![0; 1 << 16]);
}

/// Hides `/dev` but for what every program needs, then runs `$@`. `$1` is a folder for the old one.
const WITHOUT_KVM: &str = "\
mkdir $1 && mount --bind /dev $1 && mount -t tmpfs none /dev || exit 99
for device in null zero full random urandom; do touch /dev/$device && mount --bind $1/$device /dev/$device || exit 99; done
umount $1 && rmdir $1 || exit 99
shift";

#[test]
fn no_kvm() {
    if !root() {
        return;
    }
    let place = Place::new();
    firmware(&place);
    let script = format!("{WITHOUT_KVM}; exec \"$@\"");
    let words =
        ["unshare", "-m", "sh", "-c", &script, "sh", "old-dev", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
    let mut command =
        place.command(&words, &["run", "--disk", "a.img", "--firmware", "bios.bin", "--timeout", "60s"]);
    command.args(OUTPUTS.iter().flat_map(|(option, file)| [option, file]));
    place.refused(
        command,
        "/dev/kvm: not there: load kvm_amd or kvm_intel, or enable virtualization in this machine's firmware set-up",
    );
}

#[test]
fn no_permission_for_kvm() {
    if !root() {
        return;
    }
    let place = Place::new();
    firmware(&place);
    fs::set_permissions(place.path("a.img"), fs::Permissions::from_mode(0o666)).unwrap();
    // Wherever the build is, nobody may run it from here.
    let script = format!(
        "{WITHOUT_KVM}; (umask 077; > /dev/kvm); cp $1 /dev/shm; shift; \
         exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups /dev/shm \"$@\""
    );
    let words =
        ["unshare", "-m", "sh", "-c", &script, "sh", "old-dev", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
    let mut command =
        place.command(&words, &["run", "--disk", "a.img", "--firmware", "bios.bin", "--timeout", "60s"]);
    command.args(OUTPUTS.iter().flat_map(|(option, file)| [option, file]));
    place.refused(command, "/dev/kvm: permission denied: run as root or join the group kvm");
}

#[test]
fn images_that_are_none() {
    let place = Place::new();
    firmware(&place);
    place.file("odd.img", [0; 1000]);
    place.file("empty.img", "");
    for (image, line) in [
        ("no.img", "no.img: no such image: check the path"),
        ("a.img/b", "a.img/b: no such image: check the path"),
        ("", "--disk: \"\" is not a disk: give the path of an image, or a target as aoe:7.1"),
        (
            "odd.img",
            "odd.img: not a multiple of 512 bytes (1,000): \
             if it is a raw disk image, `truncate -s %512 FILE` fills up its last sector",
        ),
        ("empty.img", "empty.img: the image is empty: `truncate -s 8G FILE` gives it a size"),
        (".", ".: a directory: give the path of the image itself"),
        ("/dev/null", "/dev/null: neither a file nor a block device: give the path of a disk image"),
    ] {
        place.refused(place.run(&["--firmware", "bios.bin", "--disk", image]), line);
        if !image.is_empty() {
            let export = format!("7.1={image}");
            place.refused(place.kagero(&["serve", "--interface", "lo", &export, "--pcap", "run.pcap"]), line);
        }
    }
}

#[test]
fn an_image_in_use_by_another_writer() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    firmware(&place);
    let serving = place.serving("lo");
    let line = format!(
        "disk image a.img is in use by process {} (kagero): end that first, or use a copy",
        serving.0.id()
    );
    place.refused(place.run(&["--disk", "a.img", "--firmware", "bios.bin"]), &line);
    place.refused(place.run(&["--disk", "a.img,read-only", "--firmware", "bios.bin"]), &line);
    place.refused(place.kagero(&["serve", "--interface", "near", "7.2=a.img", "--pcap", "run.pcap"]), &line);
}

#[test]
fn overlays_that_can_not_be_used() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    let words = "serve --control none --state none --interface near --pcap run.pcap 7.1=a.img,overlay=over";
    let serve = || place.kagero(&words.split(' ').collect::<Vec<_>>());
    place.refused(serve(), "no folder over for overlays: make it with `mkdir`");

    fs::create_dir(place.path("over")).unwrap();
    let base = Arc::new(Image::open(&place.path("a.img"), Access::ReadOnly).unwrap());
    let overlay = place.path("over/02:00:00:00:00:01.overlay");
    let identity = Identity::of(&base).unwrap();
    drop(Overlay::create(&overlay, Arc::clone(&base), &identity).unwrap());
    drop(base);
    fs::write(place.path("a.img"), vec![1; 1 << 20]).unwrap();
    place.refused(
        serve(),
        "overlay over/02:00:00:00:00:01.overlay was made over another state of a.img (its contents differs): \
         bring that back, or take the overlay away",
    );
    // One that is damaged stops its own client alone.
    fs::write(&overlay, "KAGEROVL").unwrap();
    let mut child = serve().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("serving on ")));
    child.kill().unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    let line = "client 02:00:00:00:00:01 gets nothing but errors: overlay over/02:00:00:00:00:01.overlay is damaged: \
                it is too short; take it away, and the client begins anew from the base\n";
    assert!(said.ends_with(line) && said.lines().count() == 1, "{said}");
}

/// Every command that uses an interface refuses it with `line`.
#[track_caller]
fn interface_refused(place: &Place, interface: &str, line: &str) {
    let target = ["--firmware", "bios.bin", "--disk", "aoe:7.1", "--interface", interface];
    place.refused(place.run(&target), line);
    // Also when the other disk has been opened already.
    place.refused(place.run(&[&["--disk", "a.img"][..], &target].concat()), line);
    place
        .refused(place.kagero(&["serve", "--interface", interface, "7.1=a.img", "--pcap", "run.pcap"]), line);
    place.refused(place.kagero(&["discover", "--interface", interface]), line);
}

#[test]
fn interfaces_that_can_not_be_used() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    firmware(&place);
    interface_refused(&place, "eth9", "no interface eth9: there are far, lo, near");
    interface_refused(
        &place,
        "a/b",
        "--interface: \"a/b\" can't be an interface's name: `ip -brief link` lists the interfaces",
    );

    let network = place.network.as_ref().unwrap();
    network.ip("link set near down").unwrap();
    interface_refused(&place, "near", "interface near is down: bring it up with `ip link set dev near up`");

    network.ip("link set near mtu 1099 up").unwrap();
    interface_refused(
        &place,
        "near",
        "interface near has an MTU of 1099, AoE needs 1100: set it with `ip link set dev near mtu 1500`",
    );
    network.ip("link set near mtu 1100").unwrap();
    drop(place.serving("near"));
}

#[test]
fn nobody_may_not_use_an_interface() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    let binary = place.path("kagero");
    fs::copy(env!("CARGO_BIN_EXE_kagero"), &binary).unwrap();
    let as_nobody =
        ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "./kagero"].map(OsStr::new);
    let line = "no permission to use interface near: run as root, or with the capability CAP_NET_RAW";
    place.refused(place.command(&as_nobody, &["discover", "--interface", "near"]), line);
    place.refused(place.command(&as_nobody, &["serve", "--interface", "near", "7.1=a.img"]), line);
}

#[test]
fn no_answer_from_the_target() {
    if !root() || !can_run() {
        return;
    }
    let place = Place::with_cable(1500);
    let mend =
        "start `kagero serve` for it, look with `kagero discover`, or wait longer with --attach-timeout";
    let disk = ["--disk", "aoe:7.9", "--interface", "near", "--disk", "aoe:7.1", "--attach-timeout"];
    let mut command = place.kagero(&["run", "--memory", "64M"]);
    // Longer than any progress is held back.
    command.args(disk).arg("2.5s").args([
        "--console",
        "boot.log",
        "--report",
        "run.json",
        "--trace",
        "t.txt",
    ]);
    place.refused(command, &format!("aoe:7.9, aoe:7.1: no answer from the target in 2.5 s: {mend}"));

    // One of two answers. A capture that was asked for is kept: it shows what went over the wire.
    let _serving = place.serving("far");
    let before = place.content();
    let mut command = place.run(&[]);
    command.args(disk);
    let output = command.arg("300ms").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("kagero: aoe:7.9: no answer from the target in 0.3 s: {mend}\n"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let mut after = place.content();
    let capture = after.remove(OsStr::new("run.pcap")).unwrap();
    assert!(capture.len() > 24 + 16 + 60, "{} bytes are no frame", capture.len());
    assert!(before == after, "left behind: {:?}", after.keys());
}

#[test]
fn a_search_that_finds_nothing_is_no_mistake() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    let output = place.kagero(&["discover", "--interface", "near", "--timeout", "100ms"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no targets found\n");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
}

#[test]
fn two_of_what_there_may_be_one() {
    let place = Place::new();
    firmware(&place);
    fs::hard_link(place.path("a.img"), place.path("b.img")).unwrap();
    let run = |words: &[&str]| place.run(&[&["--firmware", "bios.bin"], words].concat());
    let serve = |words: &[&str]| place.kagero(&[&["serve", "--interface", "lo"], words].concat());
    place.refused(
        run(&["--interface", "lo", "--disk", "aoe:7.1", "--disk", "aoe:7.1"]),
        "aoe:7.1: two disks have this address: give each disk a target of its own",
    );
    place.refused(
        serve(&["7.1=a.img", "7.1=b.img"]),
        "7.1: two exports have this address: give each export an address of its own",
    );
    place.refused(
        run(&["--disk", "a.img", "--disk", "b.img"]),
        "b.img: two disks are this image: give each disk an image of its own",
    );
    place.refused(
        serve(&["7.1=a.img", "7.2=b.img"]),
        "b.img: two exports are this image: give each export an image of its own, or make both read-only",
    );
    place.refused(
        run(&["--disk", "a.img,position=1", "--disk", "aoe:7.1,interface=lo,position=1"]),
        "aoe:7.1: position 1 is taken by a.img: give each disk a position of its own, 0 to 3",
    );
    let five = ["--disk", "1", "--disk", "2", "--disk", "3", "--disk", "4", "--disk", "5"];
    place.refused(
        run(&five),
        "--disk: 5 disks are too many: a machine has room for four, two on each IDE channel",
    );
}

#[test]
fn who_can_not_come_in() {
    let place = Place::new();
    let serve = |words: &[&str]| place.kagero(&[&["serve", "--pcap", "run.pcap"], words].concat());
    let lo = |export| serve(&["--interface", "lo", export]);
    let refused = |export, line: &str| place.refused(lo(export), &format!("ADDRESS=IMAGE: {line}"));
    refused(
        "7.1=a.img,allow=debian",
        "\"debian\" is not a station's Ethernet address: \
         write six pairs, as 02:00:00:00:00:01, and a + between two stations",
    );
    refused(
        "7.1=a.img,allow=ff:ff:ff:ff:ff:ff",
        "\"ff:ff:ff:ff:ff:ff\" is every station, and no frame comes from that: \
         allow each station by its own address",
    );
    refused(
        "7.1=a.img,allow=02:00:00:00:00:01+02:00:00:00:00:01",
        "allow has 02:00:00:00:00:01 twice: name it once",
    );
    place.refused(
        lo("7.1=a.img,interface=eth1"),
        "7.1: interface eth1 is not served: add --interface eth1; served is lo",
    );
    place.refused(
        serve(&["--interface", "lo", "--interface", "near", "--interface", "lo", "7.1=a.img"]),
        "--interface: lo is there twice: name it once",
    );
    place.refused(
        serve(&["--interface", "lo", "--user", "no-one-here", "7.1=a.img"]),
        "--user: there is no user \"no-one-here\": \
         `useradd --system NAME` makes one; `getent passwd` lists them",
    );
    place.refused(
        serve(&["--interface", "lo", "--seccomp", "perhaps", "7.1=a.img"]),
        "--seccomp: \"perhaps\" is unknown here: known are on, log, off",
    );
}

#[test]
fn configuration_files() {
    let place = Place::new();
    let known = "known are disk, interface, memory, cpus, firmware, kernel, initrd, append, passthrough, bind, no-reboot, console, expect, \
                 timeout, attach-timeout, on-target-loss, report, trace, trace-device, pcap, firmware-log, fault, verbose, quiet";
    let run: [(&[u8], &str); 10] = [
        (
            b"disk = \"a.img\"\nmemroy = \"1G\"\n",
            "vm.toml:2: \"memroy\" is an unknown key: did you mean \"memory\"?",
        ),
        (b"graphics = true", &format!("vm.toml:1: \"graphics\" is an unknown key: {known}")),
        (b"[graphics]\nheads = 2", &format!("vm.toml:1: \"graphics\" is an unknown key: {known}")),
        (
            b"[[disk]]\nsource = \"a.img\"\nread_only = true",
            "vm.toml:3: \"read_only\" is unknown here: did you mean \"read-only\"?",
        ),
        (
            b"memory = 1",
            "vm.toml:1: invalid type: integer `1`, expected a size in quotes with its unit, as \"2G\"",
        ),
        (b"memory = \"1G\"\nmemory = \"2G\"", "vm.toml:2: duplicate key"),
        (b"disk = [", "vm.toml:1: unclosed array, expected `]`"),
        (
            b"cpus = 17\ndisk = \"a.img\"\nfirmware = \"bios.bin\"",
            "--cpus: a machine with 17 CPUs can't be made: give 1 to 16",
        ),
        (b"memory = \"\xff\"", "vm.toml: the configuration is not UTF-8 text: it has to be a TOML file"),
        (
            &[b' '; (1 << 20) + 1],
            "vm.toml: too large for a configuration, which has 1024 KiB at most: name a TOML file after --config",
        ),
    ];
    for (text, line) in run {
        place.file("vm.toml", text);
        place.refused(place.run(&["--config", "vm.toml"]), line);
    }
    let serve: [(&[u8], &str); 6] = [
        (
            b"export = \"7.1=a.img\"\ninterfaces = \"lo\"",
            "vm.toml:2: \"interfaces\" is an unknown key: did you mean \"interface\"?",
        ),
        (
            b"disk = \"a.img\"",
            "vm.toml:1: \"disk\" is an unknown key: known are export, interface, threads, user, pcap, state, control, metrics, seccomp, verbose, quiet",
        ),
        (
            b"interface = [\"lo\", \"lo\"]\nexport = \"7.1=a.img\"",
            "--interface: lo is there twice: name it once",
        ),
        (
            b"[[export]]\naddress = \"7.1\"\nimage = \"a.img\"\nallow = [\n\"02:00:00:00:00:01\",\n\"02:00:00:00:00:0g\"]",
            "vm.toml:6: \"02:00:00:00:00:0g\" is not a station's Ethernet address: \
             write six pairs, as 02:00:00:00:00:01, and a + between two stations",
        ),
        (
            b"[[export]]\naddress = \"7.1\"\nimage = \"a.img\"\nallow = []",
            "vm.toml:4: \"allow\" is an empty list: leave it out to allow all",
        ),
        (
            b"[[export]]\naddress = \"7.1\"\nimage = \"a.img\"\nread-only = [true]",
            "vm.toml:4: invalid type: sequence, expected a string, a whole number, true or false",
        ),
    ];
    for (text, line) in serve {
        place.file("vm.toml", text);
        place.refused(place.kagero(&["serve", "--config", "vm.toml", "--pcap", "run.pcap"]), line);
    }
    for (path, problem) in [
        (".", "can't read the configuration: Is a directory (os error 21)"),
        ("/dev/zero", "too large for a configuration, which has 1024 KiB at most"),
    ] {
        place.refused(
            place.run(&["--config", path]),
            &format!("{path}: {problem}: name a TOML file after --config"),
        );
    }
}

#[test]
fn machines_that_can_not_be() {
    let place = Place::new();
    firmware(&place);
    place.file("odd.bin", [0; 1000]);
    place.file("empty", "");
    let disk = ["--disk", "a.img", "--firmware", "bios.bin"];
    for (words, line) in [
        (&["--memory", "1"][..], "--memory: given twice: give it once"),
        (&["--cpus", "17"], "--cpus: a machine with 17 CPUs can't be made: give 1 to 16"),
        (&["--cpus", "0"], "--cpus: a machine with 0 CPUs can't be made: give 1 to 16"),
        (&["--expect", ""], "--expect: an empty text is always there: give the text to wait for"),
    ] {
        place.refused(place.run(&[&disk, words].concat()), line);
    }
    for (size, line) in [
        ("1", "--memory: \"1\" is not a size: write it with its unit, as 512M or 2G"),
        ("1M", "--memory: 1M is too little: give 16M to 1T"),
        ("2T", "--memory: 2T is too much: give 16M to 1T"),
    ] {
        place.refused(place.kagero(&[&["run", "--memory", size], &disk[..]].concat()), line);
    }
    for (words, line) in [
        (&["--firmware", "no.bin"][..], "no.bin: no such firmware image: check the path"),
        (&["--firmware", "."], ".: a directory: give the path of the firmware image itself"),
        (&["--firmware", "/dev/zero"], "/dev/zero: the firmware image is empty: check the path"),
        (&["--kernel", "no"], "no: no such kernel: check the path"),
        (&["--kernel", "."], ".: a directory: give the path of the kernel itself"),
        (&["--kernel", "empty"], "empty: the kernel is empty: check the path"),
        (&["--kernel", "a.img", "--initrd", "no"], "no: no such initial RAM disk: check the path"),
    ] {
        place.refused(place.run(&[&["--disk", "a.img"], words].concat()), line);
    }
    if !can_run() {
        return;
    }
    let bios = "name a BIOS image with --firmware";
    place.refused(
        place.run(&["--disk", "a.img", "--firmware", "odd.bin"]),
        &format!("odd.bin: 1000 bytes are no firmware image: those have a multiple of 64 KiB: {bios}"),
    );
    let mut kernel = place.run(&["--kernel", "a.img"]);
    let output = kernel.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("kagero: a.img: neither a bzImage nor an ELF kernel that fits ("), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1));
    assert!(!place.path("boot.log").exists() && !place.path("run.json").exists());
}

#[test]
fn outputs_that_can_not_be() {
    let place = Place::new();
    firmware(&place);
    let run = |words: &[&str]| {
        place.kagero(
            &[&["run", "--disk", "a.img", "--firmware", "bios.bin", "--timeout", "60s"], words].concat(),
        )
    };
    for (option, _) in OUTPUTS {
        place.refused(
            run(&[option, "no/file"]),
            &format!("no/file: {option} can't make a file there: no folder no: create it first"),
        );
        place.refused(
            run(&[option, "."]),
            &format!(".: a directory, where {option} needs a file: add a file name"),
        );
        // The worst of all slips.
        place.refused(
            run(&[option, "./a.img"]),
            &format!("./a.img: {option} would write over it, and it is needed here: give another file"),
        );
    }
    place.refused(
        run(&["--console", "one", "--report", "one"]),
        "one: --console and --report would both write it: give each a file of its own",
    );
    place.refused(
        run(&["--trace-device", "uarts"]),
        "--trace-device: there is no device \"uarts\": did you mean \"uart\"?",
    );
    place.refused(
        place.kagero(&["serve", "--interface", "lo", "7.1=a.img", "--pcap", "a.img"]),
        "a.img: --pcap would write over it, and it is needed here: give another file",
    );
    fs::rename(place.path("a.img"), place.path("a.1")).unwrap();
    place.refused(
        place.kagero(&["serve", "--interface", "lo", "--interface", "near", "7.1=a.1", "--pcap", "a"]),
        "a.1: --pcap would write over it, and it is needed here: give another file",
    );
}

#[test]
fn a_read_only_file_system() {
    if !root() {
        return;
    }
    let place = Place::new();
    firmware(&place);
    let script = "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" && exec \"$@\"";
    let words = ["unshare", "-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
    let run = |more: &[&str]| {
        place.command(
            &words,
            &[&["run", "--timeout", "60s", "--firmware", "bios.bin", "--disk"], more].concat(),
        )
    };
    place.refused(
        run(&["a.img"]),
        "disk image a.img is on a read-only file system: add `,read-only` to its name to use it so, or copy it",
    );
    place.refused(
        run(&["a.img,read-only", "--report", "run.json"]),
        "run.json: --report can't write there: Read-only file system (os error 30): give a file elsewhere",
    );
}

#[test]
fn a_report_that_finds_no_room_is_said_at_the_end() {
    if !root() || !can_run() {
        return;
    }
    let place = Place::new();
    // A file system with room for names, and for nothing in them.
    let script = "mkdir full && mount -t tmpfs -o size=4k none full && head -c 4096 /dev/zero > full/all && \"$@\"; code=$?; ls full; exit $code";
    let words = ["unshare", "-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
    let run =
        ["run", "--quiet", "--memory", "64M", "--disk", "a.img", "--console", "none", "--timeout", "100ms"];
    let output =
        place.command(&words, &[&run[..], &["--report", "full/run.json"]].concat()).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "kagero: full/run.json: can't write the report: No space left on device (os error 28)\n"
    );
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b"all\n"[..]));
}

#[test]
fn a_report_to_a_device_leaves_the_device_there() {
    if !root() || !can_run() {
        return;
    }
    let place = Place::new();
    let device = place.path("null");
    let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap();
    if !made.success() {
        eprintln!("skipped: no device nodes can be made here");
        return;
    }
    let run =
        ["run", "--quiet", "--memory", "64M", "--disk", "a.img", "--console", "none", "--timeout", "100ms"];
    let output = place.kagero(&[&run[..], &["--report", "null"]].concat()).output().unwrap();
    assert_eq!(
        (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
        (Some(124), "kagero: time-out after 100ms\n")
    );
    assert_eq!(fs::metadata(&device).unwrap().rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn no_nbd_server() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    place.refused(
        place.kagero(&["serve", "--interface", "near", "7.1=nbd+unix:///a?socket=none.sock", "--pcap", "run.pcap"]),
        "NBD export nbd+unix:///a?socket=none.sock: no server answers (No such file or directory (os error 2)): \
         start it, or check the host and port, or the socket's path",
    );
}

#[test]
fn nobody_listens() {
    if !root() {
        return;
    }
    let place = Place::with_cable(1500);
    // The reader of a pipe has gone, or the descriptor is closed.
    for (way, code) in [("2>&1 | :", 1), (">&-", 1), ("2>&- >&-", 1)] {
        let script = format!("(\"$@\"; echo $? >code) {way}");
        let words = ["sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
        let mut command = place.command(&words, &["discover", "--interface", "near", "--timeout", "200ms"]);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(fs::read_to_string(place.path("code")).unwrap().trim(), code.to_string());
    }
    let words =
        ["sh", "-c", "(sleep 0.1; \"$@\"; echo $? >code) 2>&1 | :", "sh", env!("CARGO_BIN_EXE_kagero")]
            .map(OsStr::new);
    assert!(place.command(&words, &["run", "--disk", "no.img"]).status().unwrap().success());
    assert_eq!(fs::read_to_string(place.path("code")).unwrap(), "2\n");
}

#[test]
fn names_that_are_no_text() {
    let place = Place::new();
    let odd = place.path(OsStr::from_bytes(b"a\xff.img"));
    fs::copy(place.path("a.img"), &odd).unwrap();
    let mut command = place.kagero(&["run", "--disk"]);
    command.arg(odd.file_name().unwrap());
    place.refused(
        command,
        "a\u{fffd}.img: not UTF-8 text: give the file another name, or a symbolic link with one",
    );
    if !can_run() {
        return;
    }
    // Where any path will do, the report says it as well as JSON can.
    let mut command =
        place.kagero(&["run", "--quiet", "--disk", "a.img", "--console", "none", "--timeout", "100ms"]);
    command.arg("--report").arg(place.path(OsStr::from_bytes(b"run\xff.json")));
    let output = command.output().unwrap();
    assert_eq!(
        (output.status.code(), &*String::from_utf8_lossy(&output.stderr)),
        (Some(124), "kagero: time-out after 100ms\n")
    );
    let mut report = String::new();
    let mut file = fs::File::open(place.path(OsStr::from_bytes(b"run\xff.json"))).unwrap();
    file.read_to_string(&mut report).unwrap();
    assert!(report.contains("run\u{fffd}.json"));
}

/// Puts a made-up host's `/sys` and interrupts in place of this machine's, and an empty `/run`, then runs `$@`. `$1` is the made-up one's folder.
const MADE_UP: &str = "\
mount --bind $1/sys /sys && mount --bind $1/proc/interrupts /proc/interrupts && mount -t tmpfs none /run || exit 99
shift; exec \"$@\"";

#[test]
fn functions_that_can_not_go() {
    if !root() || !can_run() {
        return;
    }
    let place = Place::new();
    firmware(&place);
    let host = MadeUp::new(place.path("host"));
    host.function("0000:00:1c.0", 0x06_0400, "pcieport", Some(4))
        .function("0000:00:1c.0/0000:03:00.0", 0x01_0802, "nvme", Some(5))
        .function("0000:00:1f.0", 0x06_0100, "lpc_ich", Some(8))
        .function("0000:00:1f.3", 0x0c_0500, "vfio-pci", Some(8));
    let words =
        ["unshare", "-m", "sh", "-c", MADE_UP, "sh", "host", env!("CARGO_BIN_EXE_kagero")].map(OsStr::new);
    let refused = |options: &[&str], line: &str| {
        let mut command =
            place.command(&words, &["run", "--disk", "a.img", "--firmware", "bios.bin", "--timeout", "60s"]);
        command.args(options).args(OUTPUTS.iter().flat_map(|(option, file)| [option, file]));
        place.refused(command, line);
    };
    refused(
        &["--passthrough", "04:00.0"],
        "0000:04:00.0: this host has no such PCI function: `kagero devices` lists what is here",
    );
    refused(
        &["--passthrough", "00:1c.0", "--bind"],
        "0000:00:1c.0: PCI bridge: name the functions behind it",
    );
    refused(
        &["--passthrough", "03:00.0"],
        "0000:03:00.0: has the driver nvme, not vfio-pci: add --bind, which gives it back at the end",
    );
    refused(
        &["--passthrough", "03:00.0", "--passthrough", "00:1f.3", "--bind"],
        "0000:00:1f.3: shares IOMMU group 8 with 0000:00:1f.0 (ISA bridge): \
         the whole group has to go: free those too, or put the card into another slot",
    );
    // Nobody is behind these files, as if the kernel's driver found nothing that it can do with the device.
    refused(
        &["--passthrough", "03:00.0", "--bind", "--quiet"],
        "0000:03:00.0: vfio-pci did not take it: see the kernel's log (`dmesg`)",
    );
    let only = fs::read_to_string(host.path("sys/bus/pci/devices/0000:03:00.0/driver_override")).unwrap();
    assert_eq!((only.trim(), host.driver_of("0000:03:00.0").as_deref()), ("", Some("nvme")));

    host.file("proc/interrupts", "  CPU0\n  0: 40 IO-APIC 2-edge timer\n");
    refused(
        &["--passthrough", "00:1f.3"],
        "--passthrough: interrupt remapping is off: a guest could send the host any interrupt: enable it in the firmware \
         set-up, or, if you trust the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1",
    );
    fs::remove_dir_all(host.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    refused(&["--passthrough", "all"], "vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`");
    fs::remove_dir_all(host.path("sys/kernel/iommu_groups")).unwrap();
    refused(
        &["--passthrough", "all", "--bind"],
        "--passthrough: this host has no IOMMU, or doesn't use it: enable VT-d or AMD-Vi in its firmware set-up, \
         and boot with intel_iommu=on on the kernel's command line",
    );
}
