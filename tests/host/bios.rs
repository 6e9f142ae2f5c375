//! Guests that SeaBIOS loads.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::Lab;

/// A disk of 8 MiB on which sectors 5 and 5000 say so, with `boot` at its beginning.
fn disk(lab: &Lab, number: usize, boot: &[u8]) -> PathBuf {
    let path = lab.path(&format!("{number}.img"));
    let mut image = vec![0; 8 << 20];
    image[..boot.len()].copy_from_slice(boot);
    // The guest is longer than five sectors only by zeros.
    for sector in [5, 5000] {
        let text = format!("disk {number}, sector {sector}\0");
        image[512 * sector..][..text.len()].copy_from_slice(text.as_bytes());
    }
    fs::write(&path, image).unwrap();
    path
}

#[test]
fn the_bios_reads_and_writes_disks_at_all_positions_also_after_a_reset() {
    let Some(lab) = Lab::with_bios() else { return };
    let boot = lab.boot_sectors("disks");
    assert!(boot[5 * 512..].iter().all(|byte| *byte == 0), "the guest is in its first five sectors");
    let disks: Vec<PathBuf> = (0..4).map(|number| disk(&lab, number, &boot)).collect();
    // Given in another order than they lie in.
    let place = |number: usize| format!("{},position={number}", disks[number].display());
    let mut command = lab.run(Path::new(&place(3)), &[]);
    for number in [0, 2, 1] {
        command.arg("--disk").arg(place(number));
    }
    let ended = lab.ended(command);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.report["boots"], 2);
    assert_eq!(ended.stdout.matches("once more\n").count(), 1, "{}", ended.stdout);
    for (number, disk) in disks.iter().enumerate() {
        let drive = 0x80 + number;
        let line =
            format!("drive {drive:08x}: disk {number}, sector 5, disk {number}, sector 5000, written\n");
        assert!(ended.stdout.contains(&line), "{line:?} is not in {}", ended.stdout);
        let image = fs::read(disk).unwrap();
        assert_eq!(image[6 * 512..][..2], [drive as u8, b'C']);
        assert_eq!(image[7 * 512..][..2], [drive as u8, b'N']);
        assert_eq!(ended.report["disks"][number]["bytes_written"], 1024);
    }
    assert!(!ended.stdout.contains("drive 00000084"), "{}", ended.stdout);
}

#[test]
fn the_bios_boots_from_position_2_and_knows_cpus_memory_and_acpi() {
    let Some(lab) = Lab::with_bios() else { return };
    let boot = lab.boot_sectors("bios");
    let disk = disk(&lab, 0, &boot);
    let log = lab.path("firmware.log");
    let place = PathBuf::from(format!("{},position=2", disk.display()));
    let mut command = lab.run(&place, &["--cpus", "16", "--memory", "5G"]);
    command.arg("--firmware-log").arg(&log);
    let ended = lab.ended(command);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for line in [
        // From 1 MiB on; SeaBIOS takes something from its end. And 2 GiB from 4 GiB on.
        "memory 0000000000100000+00000000bfe",
        "memory 0000000100000000+0000000080000000 00000001\n",
        "RSDP sum 00000000\n",
    ] {
        assert!(ended.stdout.contains(line), "{line:?} is not in {}", ended.stdout);
    }
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("Found 16 cpu(s)"), "{log}");
    let names: Vec<_> =
        ended.report["phases"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert!(names.contains(&"firmware".into()) && names.contains(&"boot loader".into()), "{names:?}");
    assert_eq!(ended.report["disks"][0]["position"], 2);
}
