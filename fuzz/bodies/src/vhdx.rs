//! VHDX images from anyone.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crc::{CRC_32_ISCSI, Crc};
use kagero_target::{Access, Format, Image};
use rustix::fs::MemfdFlags;

use crate::input::Input;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Where things are, at first.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
const LOG: u64 = MIB;
const BAT: u64 = 2 * MIB;
const METADATA: u64 = 3 * MIB;
const ITEMS: usize = 64 << 10;
const BLOCKS: u64 = 4 * MIB;
const END: u64 = 8 * MIB;
/// What all data consists of, beside zeros.
const DATA: u8 = 0xd5;
const GUID: [u8; 16] = [0x47; 16];

/// `data` is a list of changes to an image that is right.
pub fn vhdx(data: &[u8]) {
    let mut input = Input::new(data);
    let mut made = Made::new();
    let changed = !input.is_empty();
    for _ in 0..40 {
        if input.is_empty() {
            break;
        }
        made.change(&mut input);
    }
    let file = made.file();
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match Image::open_as(&path, Access::ReadOnly, Some(Format::Vhdx)) {
        Ok(image) => check(&image, &made, &mut input),
        Err(error) => {
            let text = error.to_string();
            assert!(changed, "an image that is right is refused: {text}");
            assert!(text.contains("/proc/self/fd/") && !text.contains('\n'), "{text}");
        }
    }
}

/// An image that opens can be read everywhere, and holds nothing but data.
fn check(image: &Image, made: &Made, input: &mut Input<'_>) {
    let size = image.size();
    assert!(size > 0 && size.is_multiple_of(512) && size <= 64 << 40, "a disk of {size} bytes");
    let mut out = [0xee; 3 * PAGE];
    for place in [0, MIB - 512, 3 * MIB, size / 2, size.saturating_sub(out.len() as u64), input.number()] {
        let offset = place.min(size - 512) & !511;
        let length = out.len().min((size - offset) as usize);
        let out = &mut out[..length];
        image.read(offset, out).expect("what was checked can be read");
        let mut sector = [0xee; 512];
        image.read(offset + length as u64 - 512, &mut sector).expect("so can parts of it");
        assert_eq!(sector, out[length - 512..], "the same in parts");
        let data = out.iter().all(|byte| [0, DATA].contains(byte));
        assert!(data || made.moved, "something else than data at {offset}");
    }
}

/// An image in parts.
struct Made {
    headers: [Vec<u8>; 2],
    regions: [Vec<u8>; 2],
    metadata: Vec<u8>,
    bat: Vec<u8>,
    log: Vec<(usize, Vec<u8>)>,
    end: u64,
    /// Data may be something else, or something else may be where data was.
    moved: bool,
}

impl Made {
    fn new() -> Self {
        let mut header = vec![0; PAGE];
        header[..4].copy_from_slice(b"head");
        header[66] = 1;
        put(&mut header, 68, &(MIB as u32).to_le_bytes());
        put(&mut header, 72, &LOG.to_le_bytes());
        let mut regions = vec![0; 64 << 10];
        regions[..4].copy_from_slice(b"regi");
        regions[8] = 2;
        let bat = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
        let metadata = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
        for (at, guid, place) in [(16, bat, BAT), (48, metadata, METADATA)] {
            put(&mut regions, at, &guid);
            put(&mut regions, at + 16, &place.to_le_bytes());
            put(&mut regions, at + 24, &(MIB as u32).to_le_bytes());
            regions[at + 28] = 1;
        }
        let mut metadata = vec![0; ITEMS + 64];
        metadata[..8].copy_from_slice(b"metadata");
        metadata[10] = 3;
        let parameters = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
        let size = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
        let sector = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
        for (i, (guid, length)) in [(parameters, 8), (size, 8), (sector, 4)].into_iter().enumerate() {
            let entry = 32 + 32 * i;
            put(&mut metadata, entry, &guid);
            put(&mut metadata, entry + 16, &((ITEMS + 8 * i) as u32).to_le_bytes());
            metadata[entry + 20] = length;
            metadata[entry + 24] = 4;
        }
        put(&mut metadata, ITEMS, &(MIB as u32).to_le_bytes());
        put(&mut metadata, ITEMS + 8, &(4 * MIB).to_le_bytes());
        put(&mut metadata, ITEMS + 16, &512_u32.to_le_bytes());
        let mut bat = vec![0; PAGE];
        for (i, entry) in [BLOCKS | 6, 2, (BLOCKS + 2 * MIB) | 6].iter().enumerate() {
            put(&mut bat, 8 * i, &u64::to_le_bytes(*entry));
        }
        let mut made = Made {
            headers: [header.clone(), header],
            regions: [regions.clone(), regions],
            metadata,
            bat,
            log: Vec::new(),
            end: END,
            moved: false,
        };
        made.headers[1][8] = 1;
        made.headers.iter_mut().chain(&mut made.regions).for_each(|part| seal(part));
        made
    }

    fn change(&mut self, input: &mut Input<'_>) {
        let (kind, sealed) = (input.below(32), !input.rarely(16));
        match kind {
            0..=2 => {
                let part = match kind {
                    0 => &mut self.headers[input.below(2)],
                    1 => &mut self.regions[0],
                    _ => &mut self.regions[1],
                };
                let at = input.one_of(&[0, 8, 16, 28, 32, 40, 44, 48, 60, 64, 66, 68, 72, 76, 78]);
                put(part, at, &value(input));
                if sealed {
                    seal(part);
                }
                self.moved = true;
            }
            3 => put(&mut self.metadata, input.below(160), &value(input)),
            4 => put(&mut self.metadata, ITEMS + input.below(24), &value(input)),
            5 => put(&mut self.metadata, ITEMS, &((MIB as u32) << input.below(10)).to_le_bytes()),
            6 => put(&mut self.metadata, ITEMS + 8, &(512 * (input.number() >> 9)).to_le_bytes()),
            7..=18 => put(&mut self.bat, 8 * input.below(6), &bat_entry(input).to_le_bytes()),
            19 => {
                self.end = input.one_of(&[LOG, METADATA, BLOCKS, BLOCKS + 1, END, END + MIB]);
                self.moved = true;
            }
            _ => self.log_entry(input, sealed),
        }
    }

    /// An entry of the log that is right or nearly so, and that the log is to be replayed.
    fn log_entry(&mut self, input: &mut Input<'_>, sealed: bool) {
        let next = self.log.last().map_or(0, |(place, entry)| place + entry.len() / PAGE);
        let place = if input.rarely(4) { 251 + input.below(5) } else { next };
        let tail =
            if input.rarely(4) { input.below(256) } else { self.log.first().map_or(place, |log| log.0) };
        let sequence = if input.rarely(16) { input.number() } else { 1 + self.log.len() as u64 };
        let count = input.below(4);
        let mut entry = vec![0; PAGE];
        for i in 0..count {
            let offset = input.one_of(&[BAT, BLOCKS, BLOCKS + PAGE as u64, END, METADATA + ITEMS as u64]);
            let offset = if input.rarely(8) { input.number() } else { offset };
            let mut descriptor = [0; 32];
            put(&mut descriptor, 16, &offset.to_le_bytes());
            put(&mut descriptor, 24, &sequence.to_le_bytes());
            if input.rarely(3) {
                descriptor[..4].copy_from_slice(b"zero");
                let length = if input.rarely(4) { input.number() } else { (input.below(9) * PAGE) as u64 };
                put(&mut descriptor, 8, &length.to_le_bytes());
            } else {
                let mut page = match offset {
                    BAT => {
                        let mut bat = self.bat.clone();
                        put(&mut bat, 8 * input.below(6), &bat_entry(input).to_le_bytes());
                        bat
                    }
                    _ => vec![DATA; PAGE],
                };
                descriptor[..4].copy_from_slice(b"desc");
                descriptor[4..8].copy_from_slice(&page[PAGE - 4..]);
                descriptor[8..16].copy_from_slice(&page[..8]);
                page[..4].copy_from_slice(b"data");
                page[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
                page[PAGE - 4..].copy_from_slice(&(sequence as u32).to_le_bytes());
                entry.extend(page);
            }
            put(&mut entry, 64 + 32 * i, &descriptor);
        }
        entry[..4].copy_from_slice(b"loge");
        let length = entry.len() as u32;
        put(&mut entry, 8, &length.to_le_bytes());
        put(&mut entry, 12, &((tail * PAGE) as u32).to_le_bytes());
        put(&mut entry, 16, &sequence.to_le_bytes());
        put(&mut entry, 24, &(count as u32).to_le_bytes());
        put(&mut entry, 32, &GUID);
        let last = input.one_of(&[0, END, END + MIB, u64::MAX]);
        put(&mut entry, 56, &last.to_le_bytes());
        if input.rarely(16) {
            put(&mut entry, input.below(200), &value(input));
            self.moved = true;
        }
        if sealed {
            seal(&mut entry);
        }
        self.log.push((place, entry));
        for header in &mut self.headers {
            put(header, 48, &GUID);
            seal(header);
        }
    }

    fn file(&self) -> File {
        let file = File::from(rustix::fs::memfd_create("vhdx", MemfdFlags::CLOEXEC).expect("a file"));
        let write = |bytes: &[u8], at| file.write_all_at(bytes, at).expect("room");
        write(b"vhdxfile", 0);
        for (part, at) in self.headers.iter().zip(HEADERS).chain(self.regions.iter().zip(REGIONS)) {
            write(part, at);
        }
        for (place, entry) in &self.log {
            for (i, page) in entry.chunks(PAGE).enumerate() {
                write(page, LOG + ((place + i) % 256 * PAGE) as u64);
            }
        }
        write(&self.bat, BAT);
        write(&self.metadata, METADATA);
        for block in 0..4 {
            write(&[DATA; 3 * PAGE], BLOCKS + block * MIB);
        }
        file.set_len(self.end).expect("room");
        file
    }
}

fn value(input: &mut Input<'_>) -> [u8; 8] {
    match input.below(4) {
        0 => (MIB * input.below(16) as u64).to_le_bytes(),
        1 => (input.below(16) as u64).to_le_bytes(),
        _ => input.number().to_le_bytes(),
    }
}

fn bat_entry(input: &mut Input<'_>) -> u64 {
    let state = input.one_of(&[6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 0, 1, 2, 3, 7, 4]);
    let place = if input.rarely(16) { input.number() << 20 } else { BLOCKS + MIB * input.below(4) as u64 };
    let place = if input.rarely(8) { MIB * input.below(10) as u64 } else { place };
    place | state
}

/// As much of `bytes` as there is room for.
fn put(part: &mut [u8], at: usize, bytes: &[u8]) {
    part.iter_mut().skip(at).zip(bytes).for_each(|(place, &byte)| *place = byte);
}

/// Corrects the checksum.
fn seal(part: &mut [u8]) {
    const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    put(part, 4, &[0; 4]);
    let checksum = CRC_32C.checksum(part);
    put(part, 4, &checksum.to_le_bytes());
}
