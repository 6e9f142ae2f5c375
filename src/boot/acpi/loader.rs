//! The script by which firmware places the tables: entries of 128 bytes in a file of fw_cfg (QEMU, hw/acpi/bios-linker-loader).

use super::{ALIGNMENT, Part, Step};

pub(super) const SCRIPT: &str = "etc/table-loader";
pub(super) const TABLES: &str = "etc/acpi/tables";
pub(super) const RSDP: &str = "etc/acpi/rsdp";

const ENTRY: usize = 128;
const FILE_NAME: usize = 56;

/// Commands.
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Where [`ALLOCATE`] puts a file: anywhere below 4 GiB, or where operating systems look for an RSDP.
const ZONE_HIGH: u8 = 1;
const ZONE_F_SEGMENT: u8 = 2;
const RSDP_ALIGNMENT: u32 = 16;

pub(super) fn script(steps: &[Step]) -> Vec<u8> {
    let mut script = Vec::with_capacity(ENTRY * (2 + steps.len()));
    for (name, alignment, zone) in
        [(RSDP, RSDP_ALIGNMENT, ZONE_F_SEGMENT), (TABLES, ALIGNMENT as u32, ZONE_HIGH)]
    {
        entry(&mut script, ALLOCATE, &[&file(name), &alignment.to_le_bytes(), &[zone]]);
    }
    for step in steps {
        match *step {
            Step::Pointer { part, at, size } => {
                let place = [&word(at)[..], &[size as u8]].concat();
                entry(&mut script, ADD_POINTER, &[&file(name(part)), &file(TABLES), &place]);
            }
            Step::Checksum { part, start, len, at } => {
                entry(&mut script, ADD_CHECKSUM, &[&file(name(part)), &word(at), &word(start), &word(len)]);
            }
        }
    }
    script
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Tables => TABLES,
        Part::Rsdp => RSDP,
    }
}

fn word(value: usize) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

fn file(name: &str) -> [u8; FILE_NAME] {
    let mut padded = [0; FILE_NAME];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    padded
}

fn entry(script: &mut Vec<u8>, command: u32, fields: &[&[u8]]) {
    let end = script.len() + ENTRY;
    script.extend_from_slice(&command.to_le_bytes());
    for field in fields {
        script.extend_from_slice(field);
    }
    script.resize(end, 0);
}
