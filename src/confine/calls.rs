//! The system calls that a server needs once it serves, and why. Whatever is not here ends it.
//!
//! Above all there is no way to run a program (execve, executable memory, a child), to open a network interface, or to reach another process.

use libc::*;

use When::{Always, OneOf, Ourselves, With, Without};

/// On what condition a call is allowed. Only the lower 32 bits of arguments are looked at: none that is here has more.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Whatever its arguments.
    Always,
    /// The argument with this number, from 0, is one of these.
    OneOf(u8, &'static [u64]),
    /// The argument has all of these bits.
    With(u8, u64),
    /// The argument has none of these bits.
    Without(u8, u64),
    /// The argument is our own process.
    Ourselves(u8),
}

/// `_IOR(0x12, 114, size_t)`, which the library lacks.
const BLKGETSIZE64: u64 = 0x8008_1272;

/// Whose flags lie in memory, where no filter sees them: the C library takes [`SYS_clone`] where the kernel says that it has none.
pub(super) const UNKNOWN: &[c_long] = &[SYS_clone3];

/// Why, when, and which calls. A call may be in several rows.
#[rustfmt::skip]
pub(super) const CALLS: &[(&str, When, &[c_long])] = &[
    ("images, overlays, captures, the log: data", Always, &[
        SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_preadv2,
        SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_pwritev2,
        SYS_lseek, SYS_fallocate, SYS_ftruncate, SYS_fsync, SYS_fdatasync, SYS_fadvise64,
    ]),
    ("images and overlays: look up, open, lock, make, put in place", Always, &[
        SYS_openat, SYS_close, SYS_fcntl, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_faccessat, SYS_faccessat2,
        SYS_readlink, SYS_readlinkat, SYS_getcwd, SYS_getdents64, SYS_statfs, SYS_fstatfs,
        SYS_linkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink, SYS_unlinkat,
    ]),
    // What a ring is asked to do passes by this table. No such request runs a program, and none has rights that we gave up.
    ("images: many requests at once", Always, &[
        SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    ]),
    ("frames; clients of sockets that were made at the start", Always, &[
        SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
        SYS_accept4, SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt,
    ]),
    // No AF_PACKET, no AF_NETLINK: the interfaces are those of the start.
    ("an NBD server that comes back; asking about an interface", OneOf(0, &[
        AF_UNIX as u64, AF_INET as u64, AF_INET6 as u64,
    ]), &[SYS_socket]),
    ("an NBD server that comes back", Always, &[SYS_connect]),
    ("an interface's state; a block device's size and sectors; sockets that don't wait; is it a terminal?", OneOf(1, &[
        SIOCGIFINDEX, SIOCGIFHWADDR, SIOCGIFMTU, SIOCGIFFLAGS,
        BLKGETSIZE64, BLKSSZGET, FIONBIO, TCGETS,
    ]), &[SYS_ioctl]),
    ("waiting", Always, &[
        SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait, SYS_poll, SYS_ppoll, SYS_restart_syscall,
        SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_nanosleep, SYS_clock_nanosleep,
    ]),
    ("time, chance, what the machine and who we are", Always, &[
        SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getrandom,
        SYS_uname, SYS_sysinfo, SYS_getcpu, SYS_getrusage, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getpid,
    ]),
    ("memory", Always, &[SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise]),
    ("memory that nothing is run from", Without(2, PROT_EXEC as u64), &[SYS_mmap, SYS_mprotect]),
    ("threads, no children", With(0, CLONE_THREAD as u64), &[SYS_clone]),
    ("threads", Always, &[
        SYS_exit, SYS_exit_group, SYS_futex, SYS_rseq, SYS_set_robust_list, SYS_gettid,
        SYS_sched_yield, SYS_sched_getaffinity, SYS_membarrier,
    ]),
    ("threads: their names, and those of their memory", OneOf(0, &[
        PR_SET_NAME as u64, PR_SET_VMA as u64,
    ]), &[SYS_prctl]),
    ("threads: how large a stack may be", OneOf(0, &[0]), &[SYS_prlimit64]),
    ("signals", Always, &[SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack]),
    ("an abort", Ourselves(0), &[SYS_tgkill]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A row with a condition would take away what another allows without one.
    #[test]
    fn a_call_has_one_kind_of_condition() {
        let mut rows: BTreeMap<c_long, Vec<bool>> = BTreeMap::new();
        for (_, when, calls) in CALLS {
            for call in *calls {
                rows.entry(*call).or_default().push(matches!(when, Always));
            }
        }
        let twice = |always: &Vec<bool>| always.len() > 1 && always.contains(&true);
        let wrong: Vec<_> = rows.iter().filter(|(_, always)| twice(always)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(UNKNOWN.iter().all(|call| !rows.contains_key(call)));
    }
}
