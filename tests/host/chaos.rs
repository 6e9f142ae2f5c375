//! Whatever a guest does, the VMM goes on. The guest's source tells what it does.

use crate::lab::Lab;

/// Runs `count` wild accesses on each of `cpus`, then the disk, the console and the way to switch off must still work.
fn survives(seed: u32, cpus: u32, count: u32) {
    let Some(lab) = Lab::new() else { return };
    let firmware = lab.firmware("chaos", &[("SEED", seed), ("COUNT", count)]);
    let mut command = lab.run(&lab.disk(), &["--cpus", &cpus.to_string()]);
    command.arg("--firmware").arg(firmware);
    let ended = lab.ended(command);
    let end: String = ended.stdout.lines().last().unwrap_or_default().into();
    let starts = end.strip_prefix("survived, starts: ").and_then(|n| u64::from_str_radix(n, 16).ok());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "seed {seed}: {end}");
    assert_eq!(ended.report["boots"].as_u64(), starts, "seed {seed}: {end}");
    let (accesses, bus) = (&ended.report["accesses"], &ended.report["bus"]);
    // It really was everywhere; at the port that resets the machine only rarely.
    for (device, count) in accesses.as_object().unwrap().iter().filter(|(device, _)| *device != "port-92") {
        assert!(count.as_u64().unwrap() > 20, "seed {seed}: {count} accesses to {device}");
    }
    for kind in ["bad_pio", "bad_mmio"] {
        assert!(bus[kind].as_u64().unwrap() > 100, "seed {seed}: {bus}");
    }
    assert!(ended.report["disks"][0]["commands"].as_u64().unwrap() > 20, "seed {seed}: {}", ended.report);
}

#[test]
fn one_cpu() {
    survives(1, 1, 20_000);
}

#[test]
fn one_cpu_otherwise() {
    survives(2, 1, 8_000);
}

#[test]
fn two_cpus_at_once() {
    survives(3, 2, 4_000);
}

#[test]
fn four_cpus_at_once() {
    survives(4, 4, 3_000);
}
