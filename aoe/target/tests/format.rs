//! Images in other formats: what they hold, told by QEMU's own tool, and what is refused.

mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use client::Client;
use kagero_aoe::target::Fault;
use kagero_aoe::wire::Address;
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Format, Image, Running, Server};

const SECTORS: usize = 9_001;

/// A folder with `raw.img`, which has data and holes; none without qemu-img.
fn folder() -> Option<tempfile::TempDir> {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("skipped: no qemu-img (in the package qemu-utils)");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1u32;
    let data: Vec<u8> = (0..SECTORS * 512)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Three of eight 32 KiB pieces are empty.
            if (i >> 15) % 8 < 3 { 0 } else { (state >> 24) as u8 & 0x3f }
        })
        .collect();
    fs::write(folder.path().join("raw.img"), data).unwrap();
    Some(folder)
}

fn qemu_img(folder: &Path, arguments: &str) {
    let output =
        Command::new("qemu-img").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "qemu-img {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn refusal(path: &Path, format: Option<Format>) -> String {
    Image::open_as(path, Access::ReadOnly, format).unwrap_err().to_string()
}

/// The whole disk, through a target and a link.
fn served(path: &Path, format: Format) -> Vec<u8> {
    let address = Address { shelf: 7, slot: 1 };
    let server = Server::new();
    let image = Image::open_as(path, Access::ReadOnly, Some(format)).unwrap_or_else(|e| panic!("{e}"));
    server.export_image(address, image).unwrap();
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    let running = Running::start(server, vec![there]).unwrap();
    let (mut client, disk) = Client::attach(here, address);
    let mut data = Vec::new();
    for lba in (0..disk.sectors).step_by(2_048) {
        data.extend(client.read(lba, (disk.sectors - lba).min(2_048) as u32).unwrap());
    }
    assert!(client.write(0, &[1; 512], false).is_err());
    running.stop().unwrap();
    data
}

#[test]
fn other_formats_hold_what_the_raw_image_held() {
    let Some(folder) = folder() else { return };
    let at = |name: &str| folder.path().join(name);
    let raw = fs::read(at("raw.img")).unwrap();
    let ways =
        ["", "-o compat=0.10", "-o cluster_size=512", "-o cluster_size=2M", "-c", "-o extended_l2=off"];
    for (i, how) in ways.iter().enumerate() {
        qemu_img(folder.path(), &format!("convert -f raw -O qcow2 {how} raw.img {i}.qcow2"));
        let back = served(&at(&format!("{i}.qcow2")), Format::Qcow2);
        assert!(back == raw, "differs with {how:?}");
    }
    qemu_img(folder.path(), "convert -f raw -O vhdx raw.img disk.vhdx");
    assert!(served(&at("disk.vhdx"), Format::Vhdx) == raw);
}

#[test]
fn a_backing_chain_is_followed_and_locked() {
    let Some(folder) = folder() else { return };
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("below")).unwrap();
    fs::rename(at("raw.img"), at("below/raw.img")).unwrap();
    let mut raw = fs::read(at("below/raw.img")).unwrap();
    qemu_img(folder.path(), "create -f qcow2 -F raw -b raw.img below/middle.qcow2");
    qemu_img(folder.path(), "create -f qcow2 -F qcow2 -b below/middle.qcow2 top.qcow2");
    let io = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 0xab 1M 70k", "-c", "write -z 2M 1M"])
        .arg(at("top.qcow2"))
        .output()
        .unwrap();
    assert!(io.status.success());
    raw[1 << 20..][..70 << 10].fill(0xab);
    raw[2 << 20..][..1 << 20].fill(0);
    assert!(served(&at("top.qcow2"), Format::Qcow2) == raw);

    let open = Image::open_as(&at("top.qcow2"), Access::ReadOnly, Some(Format::Qcow2)).unwrap();
    let text = Image::open(&at("below/raw.img"), Access::ReadWrite).unwrap_err().to_string();
    assert!(text.contains(" is in use by "), "{text}");
    drop(open);
    Image::open(&at("below/raw.img"), Access::ReadWrite).unwrap();
}

#[test]
fn what_cannot_be_served_is_said_in_one_line() {
    let Some(folder) = folder() else { return };
    let at = |name: &str| folder.path().join(name);
    let (top, shown) = (at("top.qcow2"), at("top.qcow2").display().to_string());
    let qcow2 = Some(Format::Qcow2);

    qemu_img(folder.path(), "create -f qcow2 -F raw -b raw.img top.qcow2");
    assert_eq!(
        refusal(&top, None),
        format!(
            "disk image {shown} begins like a qcow2 image: add format=qcow2 to serve the disk in it, or format=raw to serve the file byte for byte"
        )
    );
    assert_eq!(
        Image::open_as(&top, Access::ReadWrite, qcow2).unwrap_err().to_string(),
        format!(
            "disk image {shown}: qcow2 images are served read-only: add read-only, or overlay=DIRECTORY for writes"
        )
    );
    let raw = at("raw.img");
    assert_eq!(
        refusal(&raw, qcow2),
        format!("disk image {} is no qcow2 image: leave format=qcow2 out, or check the path", raw.display())
    );

    fs::rename(&raw, at("moved.img")).unwrap();
    assert_eq!(
        refusal(&top, qcow2),
        format!(
            "disk image {shown} has no backing file {}: put it there, or name another with `qemu-img rebase -u`",
            raw.display()
        )
    );
    fs::rename(at("moved.img"), &raw).unwrap();
    qemu_img(folder.path(), "rebase -u -f qcow2 -F qcow2 -b top.qcow2 top.qcow2");
    let looped = refusal(&top, qcow2);
    assert!(
        looped.starts_with(&format!("qcow2 image {shown} can't be served: is its own backing")),
        "{looped}"
    );
    qemu_img(folder.path(), "rebase -u -f qcow2 -F vmdk -b raw.img top.qcow2");
    assert!(refusal(&top, qcow2).contains(" has a backing file of another format, raw.img; "));

    // Version 2 has no place for the format of the backing file but an extension; without it, the header ends in zeros.
    let mut bytes = fs::read(&top).unwrap();
    let place = bytes.windows(4).position(|word| word == 0xe279_2aca_u32.to_be_bytes()).unwrap();
    bytes[place..place + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    fs::write(&top, &bytes).unwrap();
    assert!(refusal(&top, qcow2).contains(" does not say the format of its backing file "));

    bytes[32..36].copy_from_slice(&[0, 0, 0, 1]);
    fs::write(&top, &bytes).unwrap();
    assert!(refusal(&top, qcow2).contains(" can't be served: is encrypted; "));

    for format in ["vmdk", "qed"] {
        qemu_img(folder.path(), &format!("convert -f raw -O {format} raw.img other"));
        let text = refusal(&at("other"), None);
        assert!(
            text.contains(&format!(" begins like a {} image, which can't", format.to_uppercase())),
            "{text}"
        );
    }
}

#[test]
fn damage_is_an_error() {
    let Some(folder) = folder() else { return };
    qemu_img(folder.path(), "convert -f raw -O qcow2 raw.img whole.qcow2");
    let whole = fs::read(folder.path().join("whole.qcow2")).unwrap();
    let path: PathBuf = folder.path().join("damaged.qcow2");
    let try_it = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match Image::open_as(&path, Access::ReadOnly, Some(Format::Qcow2)) {
            Ok(image) => {
                let size = usize::try_from(image.size()).unwrap().min(SECTORS * 512);
                image.read(0, &mut vec![0; size])
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'));
                Err(Fault::Aborted)
            }
        }
    };
    assert_eq!(try_it(&whole), Ok(()));
    for length in [4, 40, 100, 600, 65_536, 65_544, 200_000] {
        let _ = try_it(&whole[..length]);
    }
    assert!(try_it(&whole[..100]).is_err());
    // Every byte of the header, and the first entries of the tables.
    for at in (0..104).chain((65_536..262_144).step_by(4_099)) {
        for value in [0xff, 0x80, 0x01] {
            let mut bytes = whole.clone();
            bytes[at] ^= value;
            let _ = try_it(&bytes);
        }
    }
}

#[test]
fn a_guest_cannot_make_a_raw_image_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, [0; 4_096]).unwrap();
    let mut header = [0; 1_024];
    header[..4].copy_from_slice(b"QFI\xfb");
    let image = Image::open(&path, Access::ReadWrite).unwrap();
    assert_eq!(image.write(0, &header, false), Err(Fault::Aborted));
    image.write(512, &header, false).unwrap();
    drop(image);
    // Who says that it is raw gets all of a disk.
    let image = Image::open_as(&path, Access::ReadWrite, Some(Format::Raw)).unwrap();
    image.write(0, &header, false).unwrap();
    drop(image);
    assert!(refusal(&path, None).contains("begins like a qcow2 image"));
    Image::open_as(&path, Access::ReadWrite, Some(Format::Raw)).unwrap();
}
