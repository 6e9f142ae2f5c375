//! VHDX images: what they hold, told by QEMU's own tools; logs that were not replayed; damage.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use crc::{CRC_32_ISCSI, Crc};
use kagero_target::{Access, Backend, Error, Format, Identity, Image, Overlay};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Where QEMU puts things in a file with a log of 1 MiB.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
const LOG: u64 = MIB;
const BAT: u64 = 2 * MIB;
const METADATA: u64 = 3 * MIB;

/// A folder; none without QEMU's tools.
fn folder() -> Option<TempDir> {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("skipped: no qemu-img (in the package qemu-utils)");
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

fn qemu_img(folder: &Path, arguments: &str) {
    let output = run(folder, "qemu-img", &arguments.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success(), "qemu-img {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn open(path: &Path) -> Result<Image, Error> {
    Image::open_as(path, Access::ReadOnly, Some(Format::Vhdx))
}

fn refusal(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

fn all(path: &Path) -> Vec<u8> {
    let image = open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut data = vec![0xee; image.size() as usize];
    // In pieces that do not begin or end with blocks.
    for (i, piece) in data.chunks_mut(513 << 10).enumerate() {
        image.read(i as u64 * (513 << 10), piece).unwrap();
    }
    data
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Corrects the checksum of a structure.
fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let checksum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(structure);
    structure[4..8].copy_from_slice(&checksum.to_le_bytes());
}

fn get(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn edit(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Changes both headers, or both region tables.
fn change(file: &File, places: [u64; 2], length: usize, how: impl Fn(&mut [u8])) {
    for place in places {
        let mut structure = get(file, place, length);
        how(&mut structure);
        seal(&mut structure);
        file.write_all_at(&structure, place).unwrap();
    }
}

#[test]
fn it_holds_what_the_raw_image_held() {
    let Some(folder) = folder() else { return };
    let mut random = Random(1);
    // 9 MiB and a half, and one sector; some of it empty.
    let raw: Vec<u8> = (0..19_457 * 512)
        .map(|at| if at >> 15 & 7 < 3 || at >> 20 == 5 { 0 } else { random.below(255) as u8 + 1 })
        .collect();
    fs::write(folder.path().join("raw.img"), &raw).unwrap();
    for (i, how) in [
        "",
        "-o block_size=1M",
        "-o block_size=4M,log_size=3M",
        "-o block_size=256M",
        "-o subformat=fixed",
        "-o subformat=fixed,block_size=1M",
        "-o subformat=fixed,block_size=256M",
    ]
    .iter()
    .enumerate()
    {
        qemu_img(folder.path(), &format!("convert -f raw -O vhdx {how} raw.img {i}.vhdx"));
        assert!(all(&folder.path().join(format!("{i}.vhdx"))) == raw, "differs with {how:?}");
    }
}

#[test]
fn it_can_be_the_base_of_an_overlay() {
    let Some(folder) = folder() else { return };
    let (path, _) = prepared(folder.path());
    let before = fs::read(&path).unwrap();
    let base = Arc::new(open(&path).unwrap());
    let identity = Identity::of(&base).unwrap();
    let overlay = Overlay::create(&folder.path().join("one.overlay"), base, &identity).unwrap();
    // In a block that is there, and in one that isn't.
    for at in [5 * 512, 2 * MIB + 512] {
        overlay.write(at, &[0xaa; 512], false).unwrap();
    }
    let mut data = vec![0xee; 4 << 20];
    overlay.read(0, &mut data).unwrap();
    let expected = |at: usize| match at / 512 {
        5 | 4097 => 0xaa,
        0..2048 => 0x55,
        _ => 0,
    };
    assert!(data.iter().enumerate().all(|(at, &byte)| byte == expected(at)));
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn large_disks_have_bitmap_entries_between_blocks() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("large.vhdx");
    // With blocks of 1 MiB and sectors of 512, a bitmap's entry comes after each 4 GiB.
    let size = (9 << 30) + 512;
    qemu_img(folder.path(), &format!("create -q -f vhdx -o block_size=1M large.vhdx {size}"));
    let mut random = Random(2);
    let edges = [0, (4 << 30) - 1024, (8 << 30) - 512, (4 << 30) + MIB, size - 512];
    let writes: Vec<(u64, u64, u8)> = (0..60)
        .map(|i| {
            let at = *edges.get(i).unwrap_or(&(random.below(size / 512) * 512));
            (at, (1 + random.below(300)) * 512, i as u8 + 1)
        })
        .map(|(at, length, value)| (at, length.min(size - at), value))
        .collect();
    let commands: Vec<String> =
        writes.iter().map(|(at, length, value)| format!("write -q -P {value} {at} {length}")).collect();
    let mut arguments = vec!["-f", "vhdx", "large.vhdx"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    assert!(run(folder.path(), "qemu-io", &arguments).status.success());

    let check = || {
        let image = open(&path).unwrap();
        assert_eq!(image.size(), size);
        for &(at, length, _) in &writes {
            // Some of what is around, too.
            let (from, to) = (at.saturating_sub(MIB) & !511, (at + length + MIB).min(size));
            let mut expected = vec![0; (to - from) as usize];
            for &(at, length, value) in &writes {
                let (start, end) = (at.clamp(from, to), (at + length).clamp(from, to));
                expected[(start - from) as usize..(end - from) as usize].fill(value);
            }
            let mut found = vec![0xee; expected.len()];
            image.read(from, &mut found).unwrap();
            assert!(found == expected, "differs at {from}");
        }
    };
    check();

    // The same disk with sectors of 4 KiB: now that entry comes after 32 GiB. The disk's size has to fit, too.
    let file = edit(&path);
    let blocks = size.div_ceil(MIB) as usize;
    let mut entries = get(&file, BAT, (blocks + 2) * 8);
    entries.drain(8193 * 8..8194 * 8);
    entries.drain(4096 * 8..4097 * 8);
    file.write_all_at(&entries, BAT).unwrap();
    let sector_size = METADATA + (64 << 10) + 32;
    assert_eq!(get(&file, sector_size, 4), 512_u32.to_le_bytes());
    file.write_all_at(&4096_u32.to_le_bytes(), sector_size).unwrap();
    assert!(refusal(&path).contains(" holds a disk of 9663676928"), "{}", refusal(&path));
    file.write_all_at(&(size + 3584).to_le_bytes(), METADATA + (64 << 10) + 8).unwrap();
    let image = open(&path).unwrap();
    assert_eq!(image.size(), size + 3584);
    let mut last = [0xee; 4096];
    image.read(size - 512, &mut last).unwrap();
    assert_eq!((last[0], last[512]), (5, 0));
    drop(image);
    file.write_all_at(&(9_u64 << 30).to_le_bytes(), METADATA + (64 << 10) + 8).unwrap();
    let image = open(&path).unwrap();
    for &(at, length, value) in writes.iter().rev().take(20) {
        let mut found = vec![0xee; length as usize];
        if at + length <= image.size() {
            image.read(at, &mut found).unwrap();
            // None of the last ones overlap.
            assert!(found.iter().all(|&byte| byte == value), "differs at {at}");
        }
    }
}

/// QEMU's own replay: the file is repaired in a copy, and the disk in it returned.
fn replayed_by_qemu(folder: &Path, path: &Path) -> Vec<u8> {
    fs::copy(path, folder.join("repaired.vhdx")).unwrap();
    qemu_img(folder, "check -q -r all repaired.vhdx");
    qemu_img(folder, "convert -f vhdx -O raw repaired.vhdx repaired.img");
    fs::read(folder.join("repaired.img")).unwrap()
}

#[test]
fn a_log_that_qemu_left_is_replayed_in_memory() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("dirty.vhdx");
    qemu_img(folder.path(), "create -q -f vhdx -o block_size=1M dirty.vhdx 9M");
    // QEMU writes data, then the log, then fails at the table.
    let faulty = format!(
        "driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename=dirty.vhdx,\
         file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector={},\
         file.inject-error.0.once=off",
        BAT / 512
    );
    run(
        folder.path(),
        "qemu-io",
        &["--image-opts", &faulty, "-c", "write -P 7 3M 64k", "-c", "write -P 8 5M 1k"],
    );
    let before = fs::read(&path).unwrap();
    let refused = run(folder.path(), "qemu-io", &["-r", "-c", "read 0 512", "dirty.vhdx"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a log that needs to be replayed"));

    let data = all(&path);
    assert_eq!(data[3 << 20..][..64 << 10], [7; 64 << 10]);
    assert!(data == replayed_by_qemu(folder.path(), &path));
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

/// What an entry of a log tells to do.
#[derive(Clone)]
enum Update {
    Write(u64, Box<[u8; PAGE]>),
    Zero(u64, u64),
}

#[derive(Clone)]
struct Entry {
    place: u64,
    tail: u64,
    sequence: u64,
    guid: [u8; 16],
    /// `FlushedFileOffset` and `LastFileOffset`.
    sizes: [u64; 2],
    updates: Vec<Update>,
}

impl Entry {
    fn new(place: u64, tail: u64, sequence: u64, updates: &[Update]) -> Self {
        Entry { place, tail, sequence, guid: [0x47; 16], sizes: [0, 0], updates: updates.to_vec() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut entry = vec![0; (64 + 32 * self.updates.len()).next_multiple_of(PAGE)];
        for (i, update) in self.updates.iter().enumerate() {
            let mut descriptor = Vec::new();
            match update {
                Update::Zero(at, length) => {
                    descriptor.extend(b"zero\0\0\0\0");
                    descriptor.extend(length.to_le_bytes());
                    descriptor.extend(at.to_le_bytes());
                }
                Update::Write(at, data) => {
                    descriptor.extend(b"desc");
                    descriptor.extend(&data[PAGE - 4..]);
                    descriptor.extend(&data[..8]);
                    descriptor.extend(at.to_le_bytes());
                    entry.extend(b"data");
                    entry.extend(((self.sequence >> 32) as u32).to_le_bytes());
                    entry.extend(&data[8..PAGE - 4]);
                    entry.extend((self.sequence as u32).to_le_bytes());
                }
            }
            descriptor.extend(self.sequence.to_le_bytes());
            entry[64 + 32 * i..][..32].copy_from_slice(&descriptor);
        }
        let length = entry.len() as u32;
        entry[..4].copy_from_slice(b"loge");
        entry[8..12].copy_from_slice(&length.to_le_bytes());
        entry[12..16].copy_from_slice(&(self.tail as u32).to_le_bytes());
        entry[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        entry[24..28].copy_from_slice(&(self.updates.len() as u32).to_le_bytes());
        entry[32..48].copy_from_slice(&self.guid);
        entry[48..56].copy_from_slice(&self.sizes[0].to_le_bytes());
        entry[56..64].copy_from_slice(&self.sizes[1].to_le_bytes());
        seal(&mut entry);
        entry
    }
}

/// An image whose block 0 has pages of 0x55, and where that is in the file.
fn prepared(folder: &Path) -> (PathBuf, u64) {
    qemu_img(folder, "create -q -f vhdx -o block_size=1M log.vhdx 4M");
    let fill = ["-f", "vhdx", "-c", "write -q -P 0x55 0 1M", "log.vhdx"];
    assert!(run(folder, "qemu-io", &fill).status.success());
    let path = folder.join("log.vhdx");
    let entry = u64::from_le_bytes(get(&edit(&path), BAT, 8).try_into().unwrap());
    assert_eq!(entry & 7, 6);
    (path, entry & !7)
}

/// Makes these entries the log.
fn set_log(path: &Path, entries: &[Entry]) {
    let file = edit(path);
    let mut log = vec![0; MIB as usize];
    for entry in entries {
        for (i, page) in entry.encode().chunks(PAGE).enumerate() {
            let at = (entry.place as usize + i * PAGE) % log.len();
            log[at..at + PAGE].copy_from_slice(page);
        }
    }
    file.write_all_at(&log, LOG).unwrap();
    change(&file, HEADERS, PAGE, |header| header[48..64].fill(0x47));
}

#[test]
fn logs_are_replayed_as_the_format_says() {
    let Some(folder) = folder() else { return };
    let (path, block) = prepared(folder.path());
    let page = |i: u64| block + i * PAGE as u64;
    let p = PAGE as u64;
    let write = |i: u64, value: u8| {
        let mut data = [value; PAGE];
        // The parts that stand apart differ.
        data[..8].copy_from_slice(b"leading!");
        data[PAGE - 4..].copy_from_slice(b"tail");
        Update::Write(page(i), Box::new(data))
    };
    // `expected` has the pages that changed, with a byte from within each.
    let check = |what: &str, entries: &[Entry], expected: &[(usize, u8)]| {
        set_log(&path, entries);
        let data = all(&path);
        for (i, found) in data[..1 << 20].chunks(PAGE).enumerate() {
            let value = expected.iter().find(|(at, _)| *at == i).map_or(0x55, |(_, value)| *value);
            assert_eq!(found[100], value, "{what}: page {i}");
            if value != 0x55 && value != 0 {
                assert_eq!((&found[..8], &found[PAGE - 4..]), (&b"leading!"[..], &b"tail"[..]), "{what}");
            }
        }
        data
    };
    let agrees = |what: &str, entries: &[Entry], expected: &[(usize, u8)]| {
        let data = check(what, entries, expected);
        let other = replayed_by_qemu(folder.path(), &path);
        for (i, (ours, its)) in data.chunks(PAGE).zip(other.chunks(PAGE)).enumerate() {
            assert!(ours == its, "{what}: QEMU finds something else on page {i}, {:x?}", &its[..16]);
        }
    };

    let one = Entry::new(0, 0, 1, &[write(1, 0xa1)]);
    agrees("one entry", std::slice::from_ref(&one), &[(1, 0xa1)]);
    let zeroes = Entry::new(0, 0, 9, &[write(2, 1), write(3, 3), Update::Zero(page(2), p), write(4, 4)]);
    agrees("zeros between", &[zeroes], &[(2, 0), (3, 3), (4, 4)]);
    let two = Entry::new(2 * p, 0, 2, &[write(1, 0xb1), write(2, 0xb2)]);
    agrees("the later wins", &[one.clone(), two.clone()], &[(1, 0xb1), (2, 0xb2)]);
    // Around the ring's end: an entry's pages, and the sequence. QEMU does not look whether its tail is there.
    let end = MIB - 3 * p;
    let wrapped = [
        Entry::new(end, end, 1 << 32, &[write(5, 5)]),
        Entry::new(end + 2 * p, end, (1 << 32) + 1, &[write(5, 6), write(6, 7)]),
        Entry::new(2 * p, end, (1 << 32) + 2, &[write(7, 8)]),
    ];
    check("around the end", &wrapped, &[(5, 6), (6, 7), (7, 8)]);
    // More descriptors than the first page holds.
    let many: Vec<_> = (0..200).map(|i| write(i, i as u8 + 1)).collect();
    let expected: Vec<_> = (0..200).map(|i| (i, i as u8 + 1)).filter(|(_, value)| *value != 0x55).collect();
    check("many", &[Entry::new(8 * p, 8 * p, 3, &many)], &expected);

    // The newest sequence alone counts.
    let newer = Entry::new(40 * p, 40 * p, 77, &[write(9, 9)]);
    agrees("two sequences", &[one.clone(), newer.clone()], &[(9, 9)]);
    // An entry that refers to one that is not there any more is none; nor is one of another session.
    let orphan = Entry::new(80 * p, 60 * p, 99, &[write(10, 10)]);
    let foreign = Entry { guid: [0x48; 16], ..Entry::new(120 * p, 120 * p, 100, &[write(11, 11)]) };
    check("orphans", &[one.clone(), newer, orphan.clone(), foreign], &[(9, 9)]);
    // What was flushed before the tail is not of the sequence.
    let late = Entry { tail: 2 * p, ..two.clone() };
    check("a later tail", &[one.clone(), late], &[(1, 0xb1), (2, 0xb2)]);

    // A torn entry at the end ends the sequence before it.
    let three = Entry::new(5 * p, 0, 3, &[write(3, 0xc3)]);
    for torn in [0, 16, 40, 64, 80, 90, PAGE, PAGE + 4, PAGE + 500, 2 * PAGE - 1] {
        set_log(&path, &[one.clone(), two.clone(), three.clone()]);
        let file = edit(&path);
        let at = LOG + 5 * p + torn as u64;
        file.write_all_at(&[get(&file, at, 1)[0] ^ 1], at).unwrap();
        assert_eq!(all(&path)[3 * PAGE + 100], 0x55, "torn at {torn}");
        assert_eq!(all(&path)[2 * PAGE + 100], 0xb2, "torn at {torn}");
    }

    // Blocks may lie where only the log says that the file reaches, and hold zeros.
    let far = fs::metadata(&path).unwrap().len();
    let mut bat = [0; PAGE];
    bat[..8].copy_from_slice(&(far | 6).to_le_bytes());
    let table = Update::Write(BAT, Box::new(bat));
    let grown = Entry { sizes: [far, far + MIB], ..Entry::new(0, 0, 1, std::slice::from_ref(&table)) };
    set_log(&path, &[grown]);
    assert!(all(&path).iter().all(|&byte| byte == 0));
    let last = Update::Write(far + MIB - p, Box::new([0xdd; PAGE]));
    set_log(&path, &[Entry::new(0, 0, 1, &[table.clone(), last])]);
    assert!(all(&path)[..1 << 20].iter().rposition(|&byte| byte != 0xdd) == Some((1 << 20) - PAGE - 1));
    set_log(&path, &[Entry::new(0, 0, 1, &[table])]);
    assert!(refusal(&path).contains(": a block lies outside the file; "));

    set_log(&path, &[Entry { sizes: [far + MIB, 0], ..one }]);
    assert!(refusal(&path).contains(" can't be served: is cut short; "));
    set_log(&path, &[orphan]);
    assert!(refusal(&path).contains(" can't be served: was not closed, and its log is damaged; "));
}

#[test]
fn what_cannot_be_served_is_said_in_one_line() {
    let Some(folder) = folder() else { return };
    qemu_img(folder.path(), "create -q -f vhdx disk.vhdx 4M");
    let path = folder.path().join("disk.vhdx");
    let shown = path.display().to_string();
    assert_eq!(
        Image::open(&path, Access::ReadOnly).unwrap_err().to_string(),
        format!(
            "disk image {shown} begins like a vhdx image: add format=vhdx to serve the disk in it, or format=raw to serve the file byte for byte"
        )
    );
    assert_eq!(
        Image::open_as(&path, Access::ReadWrite, Some(Format::Vhdx)).unwrap_err().to_string(),
        format!(
            "disk image {shown}: vhdx images are served read-only: add read-only, or overlay=DIRECTORY for writes"
        )
    );
    let whole = fs::read(&path).unwrap();
    let after = |what: &str, how: &dyn Fn(&File)| {
        fs::write(&path, &whole).unwrap();
        how(&edit(&path));
        let text = refusal(&path);
        assert!(!text.contains('\n') && text.contains(&shown), "{text}");
        assert!(text.contains(what), "{text}");
    };
    let header = |file: &File, at: usize, bytes: &[u8]| {
        change(file, HEADERS, PAGE, |header| header[at..][..bytes.len()].copy_from_slice(bytes));
    };
    let region = |file: &File, at: usize, bytes: &[u8]| {
        change(file, REGIONS, 64 << 10, |table| table[at..][..bytes.len()].copy_from_slice(bytes));
    };
    let at = |file: &File, at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    let items = METADATA + (64 << 10);

    after("holds only what differs from its parent: join them in Hyper-V", &|file| at(file, items + 4, &[2]));
    after("is of version 2, not 1", &|file| header(file, 66, &[2]));
    after("has a log of version 1, not 0", &|file| {
        header(file, 64, &[1]);
        header(file, 48, &[1]);
    });
    after("has its log where none can be", &|file| header(file, 72, &[1]));
    after("has its log where none can be", &|file| header(file, 75, &[1]));
    after("no header is valid", &|file| HEADERS.iter().for_each(|&place| at(file, place + 99, &[1])));
    after("of the same age that differ", &|file| {
        header(file, 8, &[7; 8]);
        let mut other = get(file, HEADERS[0], PAGE);
        other[20] ^= 1;
        seal(&mut other);
        at(file, HEADERS[0], &other);
    });
    after("no region table is valid", &|file| REGIONS.iter().for_each(|&place| at(file, place + 99, &[1])));
    after("its region table is too long", &|file| region(file, 8, &[0, 8]));
    after("two of its regions overlap", &|file| region(file, 16 + 16, &[0, 0, 0x10]));
    after("a region lies outside the file", &|file| region(file, 16 + 24, &[0, 0, 0, 0x70]));
    after("a region lies outside the file", &|file| region(file, 16 + 16, &[0xff; 8]));
    after("a region lies outside the file", &|file| region(file, 16 + 16, &[0; 8]));
    after("it has no block allocation table, or no metadata", &|file| region(file, 16, &[9]));
    after("required region of an unknown kind", &|file| {
        region(file, 16, &[9]);
        region(file, 16 + 28, &[1]);
    });
    after("metadata table is not valid", &|file| at(file, METADATA, b"M"));
    after("metadata table is not valid", &|file| at(file, METADATA + 10, &[0xff, 0xff]));
    after("required metadata of an unknown kind", &|file| at(file, METADATA + 32, &[9]));
    after("metadata lie outside their region", &|file| at(file, METADATA + 32 + 16, &[0xff; 4]));
    after("does not say the size", &|file| at(file, METADATA + 10, &[1]));
    after("it has metadata twice", &|file| at(file, METADATA + 64, &get(file, METADATA + 32, 16)));
    after("has blocks of 8388609 bytes", &|file| at(file, items, &[1]));
    after("has blocks of 0 bytes", &|file| at(file, items, &[0; 4]));
    after("has sectors of 513 bytes", &|file| at(file, items + 32, &[1]));
    after("holds a disk of 0 bytes", &|file| at(file, items + 8, &[0; 8]));
    after("holds a disk of 4194305 bytes", &|file| at(file, items + 8, &[1]));
    after("holds a disk of 92233720368", &|file| at(file, items + 8 + 7, &[0x80]));
    after("block allocation table is too short", &|file| at(file, items + 8 + 5, &[0x30]));
    after("a block has the state 7", &|file| at(file, BAT, &[7]));
    after("a block has the state 4", &|file| at(file, BAT, &[4]));
    after("a block lies outside the file", &|file| at(file, BAT, &[6]));
    after("a block lies outside the file", &|file| at(file, BAT, &[0xff; 8].map(|byte: u8| byte & 0xf6)));
    after("a block lies over its tables", &|file| at(file, BAT, &[6, 0, 0x20]));
    after("is cut short", &|file| file.set_len(100_000).unwrap());
    after("is cut short", &|file| file.set_len(3 * MIB).unwrap());
}

#[test]
fn one_damaged_copy_is_no_harm() {
    let Some(folder) = folder() else { return };
    let (path, _) = prepared(folder.path());
    let whole = fs::read(&path).unwrap();
    // The header that is left may be the older one, without changes that matter here.
    for place in HEADERS.iter().chain(&REGIONS) {
        for at in [0, 4, 100] {
            fs::write(&path, &whole).unwrap();
            edit(&path).write_all_at(&[0xee], place + at).unwrap();
            assert!(all(&path)[..1 << 20] == [0x55; 1 << 20]);
        }
    }
}

#[test]
fn damage_is_an_error() {
    let Some(folder) = folder() else { return };
    let (path, block) = prepared(folder.path());
    let update = [Update::Write(block, Box::new([1; PAGE]))];
    set_log(&path, &[Entry::new(0, 0, 1, &update), Entry::new(2 * 4096, 0, 2, &update)]);
    let whole = fs::read(&path).unwrap();
    let file = edit(&path);
    let try_it = || match open(&path) {
        Ok(image) => {
            let end = image.size();
            let mut data = [0; 8192];
            for at in [0, MIB - 4096, (end / 2) & !511, end.saturating_sub(8192) & !511] {
                let length = data.len().min(end.saturating_sub(at) as usize);
                let _ = image.read(at, &mut data[..length]);
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    };
    let restore = |at: u64, length: usize| file.write_all_at(&whole[at as usize..][..length], at).unwrap();
    // Every byte that means something; in structures with a checksum, with and without that corrected.
    let structures = [
        (HEADERS[0], 80, PAGE),
        (HEADERS[1], 80, PAGE),
        (REGIONS[0], 84, 64 << 10),
        (LOG, 100, 2 * PAGE),
        (LOG + 4096, 10, 0),
        (LOG + 8192, 100, 2 * PAGE),
        (BAT, 40, 0),
        (METADATA, 200, 0),
        (METADATA + (64 << 10), 48, 0),
    ];
    for (place, reach, sealed) in structures {
        for at in place..place + reach {
            for value in [0x01, 0x80, 0xff] {
                file.write_all_at(&[whole[at as usize] ^ value], at).unwrap();
                try_it();
                if sealed > 0 {
                    let mut structure = get(&file, place, sealed);
                    seal(&mut structure);
                    file.write_all_at(&structure, place).unwrap();
                    try_it();
                    restore(place, sealed);
                }
                restore(at, 1);
            }
        }
    }
    for length in
        [8, 4096, 70_000, 130_000, 200_000, 270_000, MIB, 2 * MIB + 8, 3 * MIB + 70_000, 4 * MIB + 1]
    {
        file.set_len(length).unwrap();
        try_it();
    }
    restore(0, whole.len());
    try_it();
}
