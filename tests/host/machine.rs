//! CPUs, resets, power.

use std::fs;
use std::path::PathBuf;

use crate::lab::{Lab, PATIENCE};

/// What the guest `resets` says on its start number `number`.
fn start(number: u32) -> String {
    format!("start {number:08x}\n")
}

/// What a process's open files are.
fn files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let name = |path: PathBuf| fs::read_link(path).unwrap_or_default().display().to_string();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap().path())).collect();
    names.sort();
    names
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// A disk on which the guest `resets` counts from 0.
fn uncounted(lab: &Lab) -> PathBuf {
    let disk = lab.disk();
    let mut image = fs::read(&disk).unwrap();
    image[512..1024].fill(0);
    fs::write(&disk, image).unwrap();
    disk
}

#[test]
fn every_way_to_reset_starts_the_machine_again_and_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    let mut command = lab.run(&uncounted(&lab), &["--cpus", "2"]);
    command.arg("--firmware").arg(lab.firmware("resets", &[]));
    let log = lab.path("console.log");
    let mut run = kagero_integration::process::Process::start(command, &log).unwrap();
    run.expect(&start(0), PATIENCE).unwrap();
    let before = (threads(run.pid()), files(run.pid()));
    run.input(b"x").unwrap();
    for number in 1..=12 {
        run.expect(&start(number), PATIENCE).unwrap();
    }
    assert_eq!((threads(run.pid()), files(run.pid())), before);
    run.input(b"x").unwrap();
    assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(0));
    let report = lab.report();
    assert_eq!((report["boots"].as_u64(), report["end"]["how"].as_str()), (Some(13), Some("power-off")));
    assert_eq!(report["disks"][0]["bytes_written"], 13 * 512);
}

#[test]
fn without_reboot_a_reset_is_the_end() {
    let Some(lab) = Lab::new() else { return };
    let mut command = lab.run(&uncounted(&lab), &["--no-reboot"]);
    command.arg("--firmware").arg(lab.firmware("resets", &[]));
    let log = lab.path("console.log");
    let mut run = kagero_integration::process::Process::start(command, &log).unwrap();
    run.input(b"x").unwrap();
    assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(log).unwrap(), start(0));
    let report = lab.report();
    assert_eq!((report["boots"].as_u64(), report["end"]["how"].as_str()), (Some(1), Some("reset")));
}

#[test]
fn all_cpus_start() {
    let Some(lab) = Lab::new() else { return };
    for cpus in [1, 2, 3, 16] {
        lab.guest("smp", &["--cpus", &cpus.to_string()]).said(&format!("{cpus:08x} CPUs\n"));
    }
}

#[test]
fn a_cpu_that_can_not_go_on_ends_the_run_with_one_line() {
    let Some(lab) = Lab::new() else { return };
    let ended = lab.guest("nowhere", &["--cpus", "2"]);
    assert_eq!((ended.stdout.as_str(), ended.code), ("going\n", Some(1)));
    assert_eq!(
        ended.stderr,
        "kagero: CPU 0: KVM can't emulate what the guest executes at 0xd0000000: \
         an instruction that it doesn't know, or no memory there\n"
    );
    assert_eq!(ended.report["end"]["how"], "error");
}
