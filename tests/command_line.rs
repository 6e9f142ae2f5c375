//! The built program: what it says and how it exits.

use std::path::Path;
use std::process::{Command, Output};

fn kagero(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kagero")).args(arguments).env_remove("KAGERO_LOG").output().unwrap()
}

/// Asserts exit code 2, nothing on standard output and one line on standard error.
#[track_caller]
fn refused(arguments: &[&str], line: &str) {
    let output = kagero(arguments);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("kagero: {line}\n"));
    assert_eq!(output.stdout, b"");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_can_not_be_is_one_line_and_exit_code_2() {
    refused(&["run", "--disk", "/no/such.img"], "/no/such.img: no such image: check the path");
    refused(
        &["run", "--disk", "aoe:7.1"],
        "aoe:7.1: no interface to reach it through: add --interface NAME; `ip -brief link` lists the interfaces",
    );
    refused(
        &["run", "--config", "/no/such.toml"],
        "/no/such.toml: no such configuration file: check the path after --config",
    );
    refused(
        &["serve", "7.1=debian.img"],
        "--interface: `kagero serve` needs to know the network: \
         add --interface NAME; `ip -brief link` lists the interfaces",
    );
    refused(
        &["discover"],
        "--interface: `kagero discover` needs to know the network: \
         add --interface NAME; `ip -brief link` lists the interfaces",
    );
}

#[test]
fn flags_that_are_wrong_are_one_line_too() {
    refused(
        &["run", "--memory", "2X"],
        "--memory: \"2X\" is not a size: write it with its unit, as 512M or 2G",
    );
    refused(&["run", "--cpus", "two"], "--cpus: \"two\" is not a number of CPUs: give 1 to 16");
    refused(
        &["run", "--disk", "aoe:7"],
        "--disk: \"7\" is not an AoE address: write shelf.slot, as 7.1, with a shelf of 0 to 65534 and a slot of 0 to 254",
    );
    refused(&["run", "--fault", "lost=5%"], "--fault: \"lost\" is an unknown fault: did you mean \"loss\"?");
    refused(
        &["run", "--no-reboot=perhaps"],
        "--no-reboot: \"perhaps\" is unknown here: known are true, false",
    );
    refused(
        &["run", "--passthrough", "3:0"],
        "--passthrough: \"3:0\" is not a PCI address: \
         write it as 0000:03:00.0, or 03:00.0 for short, or all; `kagero devices` lists what is here",
    );
    refused(&["run", "--memroy", "2G"], "--memroy: unknown option: did you mean --memory?");
    refused(&["run", "--graphics"], "--graphics: unknown option: see `kagero --help` for what there is");
    refused(&["run", "--memory"], "--memory: a value is missing: write --memory <SIZE>");
    refused(&["run", "--memory", "1G", "--memory", "2G"], "--memory: given twice: give it once");
    refused(&["rum"], "rum: unknown command: did you mean run?");
    refused(
        &["run", "debian.img"],
        "debian.img: nothing is expected here: disks are given with --disk; see `kagero --help`",
    );
    refused(
        &["serve", "--interface", "eth1", "debian.img"],
        "ADDRESS=IMAGE: \"debian.img\" is not an export: write address=image, as 7.1=debian.img",
    );
}

#[test]
fn a_log_filter_that_is_wrong_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_kagero"))
        .args(["run", "--disk", "/no/such.img"])
        .env("KAGERO_LOG", "kagero=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr).unwrap().starts_with("kagero: KAGERO_LOG: \"kagero=loud\" is not")
    );
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    for arguments in [
        &["run", "--disk", "aoe:7.1", "--interface", "nowhere0", "--console", "none"][..],
        &["discover", "--interface", "nowhere0"],
    ] {
        let output = kagero(arguments);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(
            line.starts_with("kagero: no interface nowhere0: there ") && line.lines().count() == 1,
            "{line}"
        );
    }
}

#[test]
fn nothing_half_done_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("odd.img"), [0; 1000]).unwrap();
    let output = kagero(&[
        "run",
        "--disk",
        &path("odd.img"),
        "--report",
        &path("run.json"),
        "--console",
        &path("boot.log"),
        "--trace",
        &path("trace.txt"),
        "--pcap",
        &path("run.pcap"),
    ]);
    assert_eq!(output.status.code(), Some(2));
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [Path::new("odd.img")]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = kagero(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("kagero ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for (arguments, word) in [
        (&["--help"][..], "kagero run --disk debian.img"),
        (&["run", "--help"], "--expect 'login:' --timeout 120s"),
        (&["serve", "--help"], "7.1=debian.img"),
        (&["discover", "--help"], "--json"),
        (&["devices", "--help"], "kagero devices restore"),
        (&["target", "--help"], "kagero target add 7.3=debian.img,read-only"),
        (&["target", "resize", "--help"], "--shrink"),
        (&["image", "--help"], "image rebase"),
        (&["image", "commit", "--help"], "--force"),
    ] {
        let help = kagero(arguments);
        assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
        assert!(String::from_utf8(help.stdout).unwrap().contains(word), "{arguments:?}");
    }
    assert_eq!(kagero(&[]).status.code(), Some(2));
}
