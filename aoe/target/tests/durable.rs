//! A flush and a durable write reach the medium: the page cache holds no dirty page of the image afterwards.

mod cachestat;

#[allow(dead_code, reason = "other tests need more of it")]
mod qemu_nbd;

use std::fs::File;
use std::path::Path;

use cachestat::unwritten;
use kagero_target::{Access, Image};
use qemu_nbd::QemuNbd;

const MIB: usize = 1 << 20;

#[test]
fn flushed_data_is_on_the_medium() {
    is_on_the_medium(|path| Image::open(path, Access::ReadWrite).unwrap());
}

#[test]
fn flushed_data_is_on_the_medium_of_an_nbd_server() {
    let mut server = None;
    is_on_the_medium(|path| server.insert(QemuNbd::on_port(path)).open(Access::ReadWrite));
}

fn is_on_the_medium(open: impl FnOnce(&Path) -> Image) {
    // Not in /tmp, which may be a file system in memory: its pages are never written anywhere.
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(MIB as u64).unwrap();
    let image = open(&path);
    let file = File::open(&path).unwrap();
    image.write(0, &vec![1; MIB], false).unwrap();
    match unwritten(&file) {
        Err(error) => {
            eprintln!("skipped: this kernel does not tell what is written ({error})");
            return;
        }
        Ok(0) => {
            eprintln!("skipped: this file system keeps no dirty pages, or has written them in the meantime");
            return;
        }
        Ok(_) => {}
    }
    image.flush().unwrap();
    assert_eq!(unwritten(&file).unwrap(), 0);
    for block in 0..16 {
        image.write(block * 65_536, &[2; 4_096], true).unwrap();
        assert_eq!(unwritten(&file).unwrap(), 0);
    }
}
