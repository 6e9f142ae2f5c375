//! A panic somewhere in the library: a storage that panics when it is told to.

// Storages of the library have unsafe methods.
#![allow(unsafe_code)]

use std::fmt;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;

use super::*;

const SIZE: u64 = 1 << 20;

/// A file that panics after so many reads.
#[derive(Debug)]
struct Faulty {
    file: Storage,
    reads_left: Arc<AtomicU64>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty file")
    }
}

impl imago::Storage for Faulty {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let left = self.reads_left.fetch_sub(1, Ordering::Relaxed);
        assert!(left > 0, "no reads left");
        // SAFETY: the caller keeps the same promises.
        unsafe { self.file.pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, _: IoVector<'_>, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.file.get_storage_helper()
    }
}

#[test]
fn a_panic_in_the_library_is_an_error_of_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = (0..SIZE).map(|at| (at >> 9) as u8).collect();
    fs::write(folder.path().join("raw.img"), &raw).unwrap();
    let convert = "convert -O qcow2 -f raw -o cluster_size=4k raw.img disk.qcow2";
    let Ok(output) = Command::new("qemu-img").args(convert.split(' ')).current_dir(folder.path()).output()
    else {
        eprintln!("skipped: no qemu-img (in the package qemu-utils)");
        return;
    };
    assert!(output.status.success());
    // Panics at each of the reads that one request takes: tables, then data.
    let mut panics = 0;
    for reads in 0.. {
        let file = ImageFile::open(&folder.path().join("disk.qcow2"), false).unwrap();
        let reads_left = Arc::new(AtomicU64::new(u64::MAX));
        let storage =
            Faulty { file: file.try_clone().unwrap().try_into().unwrap(), reads_left: reads_left.clone() };
        let image = FormatAccess::new(Qcow2::<Faulty>::open_image(storage, false).unwrap());
        let chain = Chain { image, files: vec![file] };
        let mut out = [0xee; 8 << 10];
        reads_left.store(reads, Ordering::Relaxed);
        let result = chain.read(SIZE / 2, &mut out);
        reads_left.store(u64::MAX, Ordering::Relaxed);
        if result.is_ok() {
            break;
        }
        assert_eq!(result, Err(Fault::Medium { done: 0 }));
        panics += 1;
        // The same again, and all the rest, from this image.
        chain.read(SIZE / 2, &mut out).unwrap();
        assert!(out == raw[1 << 19..][..out.len()]);
        let mut all = vec![0xee; raw.len()];
        chain.read(0, &mut all).unwrap();
        assert!(all == raw, "after a panic at read {reads}");
    }
    assert!(panics >= 2, "{panics} reads panicked");
}

#[test]
fn a_panic_is_told() {
    let told = |call: fn() -> io::Result<()>| guarded(call).unwrap_err().to_string();
    assert_eq!(told(|| panic!("plain")), "a panic in imago: plain");
    assert_eq!(told(|| panic!("number {}", 7)), "a panic in imago: number 7");
    assert_eq!(told(|| std::panic::panic_any(7)), "a panic in imago: no message");
    assert_eq!(told(|| Err(io::Error::other("no panic"))), "no panic");
}
