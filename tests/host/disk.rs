//! The IDE controller as a driver uses and abuses it.

use std::fs;

use crate::lab::Lab;

/// The sector's bytes in the disk that the guest left.
fn sector(lab: &Lab, number: usize) -> Vec<u8> {
    fs::read(lab.path("disk.img")).unwrap()[512 * number..512 * (number + 1)].to_vec()
}

#[test]
fn bus_master_dma_by_polling_and_by_interrupt_and_what_is_wrong_with_it() {
    let Some(lab) = Lab::new() else { return };
    let ended = lab.guest("dma", &[]);
    ended.said("polled\ninterrupt\nwritten\noutside\nbusy\naborted\n");
    let written: Vec<u8> = (0..128u32).flat_map(|n| (0x6b67_6f00 + n).to_le_bytes()).collect();
    assert_eq!(sector(&lab, 7), written);
    assert_eq!(sector(&lab, 11)[..4], 11u32.to_le_bytes(), "a busy disk took no command");
    let phases = ended.report["phases"].as_array().unwrap();
    assert!(phases.iter().any(|phase| phase["name"] == "disk driver"), "{phases:?}");
    let disk = &ended.report["disks"][0];
    assert_eq!((disk["bytes_written"].as_u64(), disk["errors"].as_u64()), (Some(512), Some(0)));
}

/// What the target refuses is an error for the guest, and is counted.
#[test]
fn a_read_only_disk_refuses_writes() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.disk();
    let image = fs::read(&disk).unwrap();
    let mut command = lab.run(&disk.with_file_name("disk.img,read-only"), &[]);
    command.arg("--firmware").arg(lab.firmware("write", &[]));
    let ended = lab.ended(command);
    ended.said("status 00000051\nerror 00000004\n");
    assert_eq!(ended.report["disks"][0]["errors"], 1);
    assert_eq!(fs::read(disk).unwrap(), image);
}

#[test]
fn reads_over_a_link_with_faults_are_right_and_the_report_tells_of_resends() {
    let Some(lab) = Lab::new() else { return };
    let firmware = lab.firmware("read", &[("SECTORS", 300)]);
    let faults = "loss=5%,duplicate=2%,reorder=2%,seed=7";
    let mut command = lab.run(&lab.disk(), &["--fault", faults]);
    command.arg("--firmware").arg(&firmware);
    let ended = lab.ended(command);
    ended.said("read\n");
    let disk = &ended.report["disks"][0];
    assert_eq!(disk["commands"], 300);
    // Of 600 frames and more, 5 % are lost: that none of those was needed can't be.
    assert!(disk["resends"].as_u64().unwrap() > 5, "{disk}");
    assert!(disk["duplicates"].as_u64().unwrap() > 1, "{disk}");
}

#[test]
fn a_trace_has_every_access_and_a_capture_every_frame() {
    let Some(lab) = Lab::new() else { return };
    let firmware = lab.firmware("read", &[("SECTORS", 20)]);
    let (trace, pcap) = (lab.path("trace.txt"), lab.path("run.pcap"));
    let mut command = lab.run(&lab.disk(), &[]);
    command.arg("--trace").arg(&trace).arg("--pcap").arg(&pcap).arg("--firmware").arg(firmware);
    let ended = lab.ended(command);
    ended.said("read\n");

    let trace = fs::read_to_string(trace).unwrap();
    for (device, count) in ended.report["accesses"].as_object().unwrap() {
        let lines = trace.lines().filter(|line| line.split(' ').nth(2) == Some(device));
        assert_eq!(lines.count() as u64, count.as_u64().unwrap(), "{device}");
    }
    assert!(trace.contains(" ide-command 1f7 write 1 0x20\n"), "READ SECTORS");

    let capture = fs::read(pcap).unwrap();
    let frames = frames(&capture);
    let disk = &ended.report["disks"][0];
    let counted = disk["frames_sent"].as_u64().unwrap() + disk["frames_received"].as_u64().unwrap();
    assert_eq!(frames.len() as u64, counted);
    assert!(frames.iter().all(|frame| frame[12..14] == [0x88, 0xa2]), "ATA over Ethernet");
    // The answers to the guest's reads bring a sector behind their 36 bytes of headers.
    let answers = frames.iter().filter(|frame| frame[14] & 0x08 != 0 && frame.len() == 36 + 512);
    assert!(answers.filter(|frame| frame[36..40] == 19u32.to_le_bytes()).count() > 0, "sector 19");
}

/// The frames in a capture file (the classic pcap format, in this machine's byte order).
fn frames(mut file: &[u8]) -> Vec<&[u8]> {
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(file, 0), word(file, 20)), (0xa1b2_3c4d, 1), "nanoseconds, Ethernet");
    file = &file[24..];
    let mut frames = Vec::new();
    while !file.is_empty() {
        let (captured, on_the_wire) = (word(file, 8), word(file, 12));
        assert_eq!(captured, on_the_wire, "whole frames");
        let (frame, rest) = file[16..].split_at(captured as usize);
        frames.push(frame);
        file = rest;
    }
    frames
}
