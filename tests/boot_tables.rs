//! The tables that a guest finds: every pointer and checksum, followed the way firmware and operating systems follow them.

use kagero::boot::acpi::Tables;
use kagero::boot::mptable::mp_table;
use kagero::boot::{Machine, Uart, Windows};

fn machine(cpus: u8) -> Machine {
    Machine {
        cpus,
        pm_base: 0x600,
        pirqs: [10, 10, 11, 11],
        windows: Windows {
            ports: 0xc000..=0xffff,
            memory32: 0xc000_0000..=0xfebf_ffff,
            memory64: Some(0x80_0000_0000..=0xff_ffff_ffff),
        },
        uarts: vec![Uart { port: 0x3f8, irq: 4 }],
        vga: false,
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn dword(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn qword(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Guest memory from address `base` on.
struct Memory {
    base: usize,
    bytes: Vec<u8>,
}

impl Memory {
    fn at(&self, gpa: usize, len: usize) -> &[u8] {
        &self.bytes[gpa - self.base..][..len]
    }

    fn table(&self, gpa: usize, signature: &[u8; 4]) -> &[u8] {
        let table = self.at(gpa, dword(self.at(gpa, 8), 4));
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {}", table[..4].escape_ascii());
        table
    }

    /// Follows everything from the RSDP on, and returns FADT, DSDT and MADT.
    fn follow(&self, rsdp: usize) -> [&[u8]; 3] {
        let rsdp = self.at(rsdp, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!((rsdp[15], dword(rsdp, 20)), (2, 36));
        let rsdt = self.table(dword(rsdp, 16), b"RSDT");
        let xsdt = self.table(qword(rsdp, 24), b"XSDT");
        let tables: Vec<_> = (36..rsdt.len()).step_by(4).map(|at| dword(rsdt, at)).collect();
        assert_eq!(tables, (36..xsdt.len()).step_by(8).map(|at| qword(xsdt, at)).collect::<Vec<_>>());
        let [fadt, madt] = tables[..] else { panic!("{tables:x?} are not two tables") };
        let fadt = self.table(fadt, b"FACP");
        let facs = self.at(dword(fadt, 36), 64);
        assert_eq!((&facs[..4], dword(facs, 4), dword(fadt, 36) % 64), (&b"FACS"[..], 64, 0));
        [fadt, self.table(dword(fadt, 40), b"DSDT"), self.table(madt, b"APIC")]
    }
}

/// Plays the loader's script as firmware does, with its files at addresses of our choice.
fn play(files: &[(&str, Vec<u8>)]) -> (Memory, usize) {
    let file = |name: &[u8]| {
        let name = name.split(|byte| *byte == 0).next().unwrap();
        files.iter().find(|(file, _)| file.as_bytes() == name).unwrap_or_else(|| panic!("no file {name:?}"))
    };
    let script = &file(b"etc/table-loader").1;
    let mut memory = Memory { base: 0xf_0000, bytes: vec![0; 0x10_0000] };
    let mut places: Vec<(&str, usize)> = Vec::new();
    let place = |places: &[(&str, usize)], name: &[u8]| {
        let (name, bytes) = file(name);
        let (_, gpa) = places.iter().find(|(placed, _)| placed == name).expect("allocated before use");
        (*gpa, bytes.len())
    };
    assert_eq!(script.len() % 128, 0);
    for entry in script.chunks_exact(128) {
        match dword(entry, 0) {
            1 => {
                let (name, bytes) = file(&entry[4..60]);
                let gpa: usize = match entry[64] {
                    1 => 0x12_3440,
                    2 => 0xf_1230,
                    zone => panic!("zone {zone}"),
                };
                assert_eq!(gpa % dword(entry, 60), 0);
                memory.bytes[gpa - 0xf_0000..][..bytes.len()].copy_from_slice(bytes);
                places.push((name, gpa));
            }
            2 => {
                let (at, size) = (dword(entry, 116), usize::from(entry[120]));
                let ((into, len), (to, to_len)) =
                    (place(&places, &entry[4..60]), place(&places, &entry[60..116]));
                assert!(at + size <= len);
                let pointer = &mut memory.bytes[into + at - 0xf_0000..][..size];
                let mut value = [0; 8];
                value[..size].copy_from_slice(pointer);
                let offset = u64::from_le_bytes(value);
                assert!(offset < to_len as u64);
                pointer.copy_from_slice(&(offset + to as u64).to_le_bytes()[..size]);
            }
            3 => {
                let (at, start, count) = (dword(entry, 60), dword(entry, 64), dword(entry, 68));
                let (gpa, len) = place(&places, &entry[4..60]);
                assert!(at < len && start + count <= len);
                let bytes = &mut memory.bytes[gpa - 0xf_0000..][..len];
                assert_eq!(bytes[at], 0, "a byte that firmware may overwrite or add to");
                bytes[at] = 0u8.wrapping_sub(sum(&bytes[start..start + count]));
            }
            command => panic!("command {command}"),
        }
    }
    (memory, place(&places, b"etc/acpi/rsdp").0)
}

#[test]
fn firmware_and_we_place_the_same_tables() {
    let tables = Tables::new(&machine(2));
    let (memory, rsdp) = play(&tables.files());
    let by_script = memory.follow(rsdp);
    let direct = Memory { base: 0xe_0000, bytes: tables.at(0xe_0000) };
    let [fadt, dsdt, madt] = direct.follow(0xe_0000);
    assert_eq!(by_script[1..], [dsdt, madt]);
    assert_eq!(by_script[0][44..], fadt[44..]);
    assert!(direct.bytes.len() < 0x1_0000, "fits below the BIOS: {}", direct.bytes.len());
}

#[test]
fn fadt_names_the_fixed_hardware() {
    let tables = Memory { base: 0xe_0000, bytes: Tables::new(&machine(1)).at(0xe_0000) };
    let [fadt, ..] = tables.follow(0xe_0000);
    assert_eq!((word(fadt, 46), dword(fadt, 48)), (9, 0), "SCI, SMI_CMD");
    assert_eq!((dword(fadt, 56), dword(fadt, 64), dword(fadt, 76)), (0x600, 0x604, 0x608));
    assert_eq!((qword(fadt, 152), qword(fadt, 176), qword(fadt, 212)), (0x600, 0x604, 0x608));
    assert_eq!((fadt[88], fadt[89], fadt[91], fadt[108]), (4, 2, 4, 0x32));
    assert_eq!(word(fadt, 109), 0b101, "ISA devices, no 8042, no VGA");
    assert_eq!((&fadt[116..120], qword(fadt, 120), fadt[128]), (&[1, 8, 0, 1][..], 0xcf9, 6), "reset");
    assert_ne!(dword(fadt, 112) & 1 << 10, 0, "reset register is supported");
    assert_eq!(dword(fadt, 112) & 1 << 8, 0, "24-bit timer");
}

#[test]
fn madt_has_every_processor_and_the_overrides() {
    for cpus in [1, 2, 16] {
        let tables = Memory { base: 0xe_0000, bytes: Tables::new(&machine(cpus)).at(0xe_0000) };
        let [.., madt] = tables.follow(0xe_0000);
        assert_eq!((dword(madt, 36), dword(madt, 40)), (0xfee0_0000, 1));
        let (mut at, mut ids, mut overrides) = (44, Vec::new(), Vec::new());
        while at < madt.len() {
            let entry = &madt[at..][..usize::from(madt[at + 1])];
            match entry[0] {
                0 => {
                    assert_eq!(dword(entry, 4), 1);
                    assert_eq!(entry[2], entry[3]);
                    ids.push(entry[3]);
                }
                1 => assert_eq!((dword(entry, 4), dword(entry, 8)), (0xfec0_0000, 0)),
                2 => overrides.push((entry[3], dword(entry, 4), word(entry, 8))),
                4 => assert_eq!(entry[2..], [0xff, 0, 0, 1]),
                kind => panic!("entry of type {kind}"),
            }
            at += entry.len();
        }
        assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
        assert_eq!(overrides, [(0, 2, 0), (5, 5, 13), (10, 10, 13), (11, 11, 13), (9, 9, 13)]);
    }
}

/// What a walk through AML's packages finds: names with their scopes, and for devices the `_HID`.
#[derive(Default)]
struct Namespace {
    names: Vec<String>,
    ids: Vec<(String, Vec<u8>)>,
}

impl Namespace {
    /// Walks the terms in `aml`, which must end exactly where the last of them ends. Knows only what our DSDT has outside of methods.
    fn walk(&mut self, mut aml: &[u8], scope: &str) {
        /// Length of the package from its own start on, and of its encoding.
        fn package(aml: &[u8]) -> (usize, usize) {
            let more = usize::from(aml[0] >> 6);
            let first = usize::from(aml[0] & if more == 0 { 0x3f } else { 0x0f });
            let rest = (0..more).map(|i| usize::from(aml[1 + i]) << (4 + 8 * i)).sum::<usize>();
            (first + rest, 1 + more)
        }
        let name = |aml: &[u8]| format!("{scope}.{}", std::str::from_utf8(&aml[..4]).unwrap());
        let integer = |aml: &[u8]| match aml[0] {
            0 | 1 => 1,
            0x0a => 2,
            0x0b => 3,
            0x0c => 5,
            other => panic!("{other:#x} in {scope} is no integer"),
        };
        while !aml.is_empty() {
            let len = match *aml {
                [0x10, ..] => {
                    let (len, head) = package(&aml[1..]);
                    assert_eq!(&aml[1 + head..][..5], b"\\_SB_");
                    self.walk(&aml[1 + head + 5..1 + len], "_SB_");
                    1 + len
                }
                [0x08, ..] => {
                    self.names.push(name(&aml[1..]));
                    let value = &aml[5..];
                    let len =
                        if let 0x11 | 0x12 = value[0] { 1 + package(&value[1..]).0 } else { integer(value) };
                    if &aml[1..5] == b"_HID" {
                        self.ids.push((scope.into(), value[1..len].to_vec()));
                    }
                    5 + len
                }
                [0x14, ..] => {
                    let (len, head) = package(&aml[1..]);
                    self.names.push(name(&aml[1 + head..]));
                    1 + len
                }
                [0x5b, 0x80, ..] => {
                    let offset = 7 + integer(&aml[7..]);
                    offset + integer(&aml[offset..])
                }
                [0x5b, 0x81, ..] => 2 + package(&aml[2..]).0,
                [0x5b, kind @ (0x82 | 0x83), ..] => {
                    let (len, head) = package(&aml[2..]);
                    let inside = &aml[2 + head..2 + len];
                    self.names.push(name(inside));
                    let fixed = if kind == 0x83 { 10 } else { 4 };
                    self.walk(&inside[fixed..], &name(inside));
                    2 + len
                }
                _ => panic!("{:x?} in {scope}", &aml[..aml.len().min(8)]),
            };
            aml = &aml[len..];
        }
    }
}

#[test]
fn dsdt_nests_as_meant() {
    let tables = Memory { base: 0xe_0000, bytes: Tables::new(&machine(2)).at(0xe_0000) };
    let [_, dsdt, _] = tables.follow(0xe_0000);
    let mut namespace = Namespace::default();
    namespace.walk(&dsdt[36..], "");
    let devices: Vec<_> = namespace.ids.iter().map(|(name, id)| (name.as_str(), &id[..])).collect();
    let pnp = |number: u16| [0x41, 0xd0, (number >> 8) as u8, number as u8];
    assert_eq!(
        devices,
        [
            ("_SB_.PCI0", &pnp(0x0a03)[..]),
            ("_SB_.PCI0.ISA_.RTC_", &pnp(0x0b00)),
            ("_SB_.PCI0.ISA_.TMR_", &pnp(0x0100)),
            ("_SB_.PCI0.ISA_.MBRD", &pnp(0x0c02)),
            ("_SB_.PCI0.ISA_.COM1", &pnp(0x0501)),
            ("_SB_.LNKA", &pnp(0x0c0f)),
            ("_SB_.LNKB", &pnp(0x0c0f)),
            ("_SB_.LNKC", &pnp(0x0c0f)),
            ("_SB_.LNKD", &pnp(0x0c0f)),
        ]
    );
    for name in ["._S5_", "_SB_.C000", "_SB_.C001", "_SB_.PCI0._CRS", "_SB_.PCI0._PRT", "_SB_.LNKD._SRS"] {
        assert!(namespace.names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
#[should_panic(expected = "no multiple of 64")]
fn tables_want_alignment() {
    let _ = Tables::new(&machine(1)).at(0xe_0010);
}

#[test]
fn mp_table_counts_up() {
    let bytes = mp_table(&machine(3), 0x9_fc00);
    assert_eq!((&bytes[..4], sum(&bytes[..16]), dword(&bytes, 4)), (&b"_MP_"[..], 0, 0x9_fc10));
    let table = &bytes[16..];
    assert_eq!((&table[..4], sum(table), usize::from(word(table, 4))), (&b"PCMP"[..], 0, table.len()));
    assert_eq!(dword(table, 36), 0xfee0_0000);
    let (mut at, mut count, mut processors, mut routes) = (44, 0, 0, Vec::new());
    while at < table.len() {
        let len = if table[at] == 0 { 20 } else { 8 };
        let entry = &table[at..at + len];
        match entry[0] {
            0 => processors += 1,
            3 => routes.push((entry[4], entry[5], word(entry, 2), entry[7])),
            _ => {}
        }
        (at, count) = (at + len, count + 1);
    }
    assert_eq!((at, count, processors), (table.len(), word(table, 34), 3));
    assert!(routes.contains(&(1, 0, 0, 2)), "timer");
    assert!(routes.contains(&(1, 14, 0, 14)), "IDE");
    assert!(routes.contains(&(0, 1 << 2, 13, 10)), "slot 1, INTA");
    assert!(routes.contains(&(0, 3 << 2, 13, 11)), "slot 3, INTA");
    assert!(!routes.iter().any(|route| route.0 == 1 && [2, 10, 11].contains(&route.1)));
    // Every pin of every slot, once, whatever is in the slots.
    let pins: Vec<u8> = routes.iter().filter(|route| route.0 == 0).map(|route| route.1).collect();
    assert_eq!(pins, (0..=127).collect::<Vec<u8>>());
}
