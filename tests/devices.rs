//! `kagero devices`, on this machine's own PCI functions, and on made-up ones where a mount namespace can be made, which takes root.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kagero_integration::made_up::MadeUp;

const KAGERO: &str = env!("CARGO_BIN_EXE_kagero");

/// `kagero devices` with the made-up host's `/sys` and `/run` in place of this machine's.
fn devices(host: &MadeUp, words: &[&str]) -> Output {
    let script = "mount --bind $1/sys /sys && mkdir -p $1/run && mount --bind $1/run /run || exit 99; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(host.root()).args([KAGERO, "devices"]).args(words);
    command.env_remove("KAGERO_LOG").output().unwrap()
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn said(output: Output) -> (String, String, Option<i32>) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn this_machine_s_functions_are_listed() {
    let output = Command::new(KAGERO).args(["devices", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed = json["devices"].as_array().unwrap().len();
    let here = fs::read_dir("/sys/bus/pci/devices").map_or(0, Iterator::count);
    assert_eq!((listed, output.status.code()), (here, Some(0)));
}

#[test]
fn made_up_functions_are_listed() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let host = MadeUp::new(folder.path());
    host.function("0000:00:19.0", 0x02_0000, "e1000e", Some(3))
        .interface("pci0000:00/0000:00:19.0/net/eth0", false);
    fs::remove_dir_all(host.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let (table, errors, code) = said(devices(&host, &["--interface", "eth0"]));
    assert_eq!(
        table,
        "\
address       what                 id         driver  group  reset  goes to a guest?
0000:00:19.0  Ethernet controller  1234:5678  e1000e  3      flr    no: carries AoE (eth0)

for now nothing can go: vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`
"
    );
    assert_eq!((errors.as_str(), code), ("", Some(0)));
}

#[test]
fn what_a_killed_run_has_left_is_put_back() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let host = MadeUp::new(folder.path());
    assert_eq!(said(devices(&host, &["restore"])), ("nothing to put back\n".into(), String::new(), Some(0)));

    host.function("0000:00:19.0", 0x02_0000, "vfio-pci", Some(3)).driver("e1000e");
    let journal = "run/kagero-devices/77-0.journal";
    let entry =
        |function, driver| format!("{{\"function\":\"{function}\",\"driver\":\"{driver}\",\"only\":null}}\n");
    host.file(journal, &(entry("0000:00:19.0", "e1000e") + &entry("0000:05:00.0", "nvme")));
    // Nobody is behind these files: nothing comes of what is written to them.
    let (text, errors, code) = said(devices(&host, &["restore"]));
    assert_eq!(text, "0000:05:00.0: not there any more\n0000:00:19.0: has vfio-pci, and had e1000e\n");
    assert_eq!((errors.as_str(), code), ("", Some(1)));
    for (file, name) in [("unbind", "vfio-pci"), ("bind", "e1000e")] {
        let written = fs::read_to_string(host.path(&format!("sys/bus/pci/drivers/{name}/{file}"))).unwrap();
        assert_eq!(written, "0000:00:19.0", "{file}");
    }
    // What the kernel would have done by now.
    fs::remove_file(host.path("sys/bus/pci/devices/0000:00:19.0/driver")).unwrap();
    host.link("sys/devices/pci0000:00/0000:00:19.0/driver", "sys/bus/pci/drivers/e1000e");
    let (text, _, code) = said(devices(&host, &["restore"]));
    assert_eq!(text, "0000:05:00.0: not there any more\n0000:00:19.0: back with e1000e\n");
    assert_eq!((code, Path::new(&host.path(journal)).exists()), (Some(0), false));
}
