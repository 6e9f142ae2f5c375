//! What of a file is in the page cache, and what only there.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// cachestat(2), since Linux 6.5; the libraries have no name for it yet.
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
#[derive(Default)]
struct Range {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of the file that are in the page cache, and how many of these are not on the medium.
pub(crate) fn pages(file: &File) -> io::Result<(u64, u64)> {
    let (range, mut stat) = (Range::default(), CacheStat::default());
    // SAFETY: the call reads one `Range`, to the end of the file for length 0, and writes one `CacheStat`.
    let result = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((stat.cached, stat.dirty + stat.writeback)) }
}

/// Pages of the file that are not on the medium.
pub(crate) fn unwritten(file: &File) -> io::Result<u64> {
    pages(file).map(|(_, unwritten)| unwritten)
}
