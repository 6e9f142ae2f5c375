//! The filter for system calls: what it lets through and what it ends, each in a child process that has it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use kagero::confine::{Seccomp, filter};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Says to a child what to do once it has the filter.
const TASK: &str = "KAGERO_TEST_TASK";
const MODE: &str = "KAGERO_TEST_MODE";

const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;

/// What a server must never do.
const FORBIDDEN: [&str; 9] =
    ["exec", "child", "packet", "netlink", "kill", "executable", "set-user", "namespace", "mode"];

fn carry_out(task: &str) {
    let pid = rustix::process::getpid();
    match task {
        "exec" => panic!("{}", Command::new("true").exec()),
        "child" => drop(Command::new("true").status()),
        "packet" => drop(socket(AddressFamily::PACKET, SocketType::RAW, None)),
        "netlink" => drop(socket(AddressFamily::NETLINK, SocketType::RAW, None)),
        "kill" => drop(rustix::process::test_kill_process(pid)),
        "executable" => {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            drop(vm_memory::MmapRegion::<()>::build(
                None,
                4_096,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            ));
        }
        "set-user" => drop(nix::unistd::setuid(nix::unistd::getuid())),
        "namespace" => {
            let own = std::fs::File::open("/proc/self/ns/net").unwrap();
            let _ = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network));
        }
        "mode" => drop(rustix::fs::chmod("/nowhere", rustix::fs::Mode::RWXU)),
        "abort" => std::process::abort(),
        "work" => work(),
        _ => panic!("no task {task}"),
    }
}

/// Some of what servers do.
fn work() {
    let folder = std::env::temp_dir().join(format!("kagero-seccomp-{}", std::process::id()));
    let file = std::fs::File::create_new(&folder).unwrap();
    file.write_all_at(&[1; 512], 512).unwrap();
    file.sync_data().unwrap();
    let other = folder.with_extension("link");
    std::fs::hard_link(&folder, &other).unwrap();
    std::fs::rename(&other, folder.with_extension("new")).unwrap();
    std::fs::remove_file(folder.with_extension("new")).unwrap();
    std::fs::remove_file(&folder).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let name = format!("worker-{i}");
            std::thread::Builder::new().name(name).spawn(move || vec![i; 1 << 20].len()).unwrap()
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1 << 20));
    socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    drop(UnixStream::connect("/nowhere").unwrap_err());
    drop(kagero_link::Interface::find("lo"));
    assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
    let _ = std::io::stdout().write_all(b"done\n");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Not a test of its own: what the children run.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let mode = if std::env::var_os(MODE).is_some() { Seccomp::Log } else { Seccomp::On };
    // In another thread than the filter's, so that it is there for all.
    let (go, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        wait.recv().unwrap();
        carry_out(&task);
        std::process::exit(0);
    });
    filter(mode).unwrap();
    go.send(()).unwrap();
    thread.join().unwrap();
}

fn run(task: &str, mode: Option<&str>) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads", "2"])
        .env(TASK, task)
        .env_remove(MODE)
        .env("RUST_BACKTRACE", "full");
    command.envs(mode.map(|mode| (MODE, mode))).stdin(std::process::Stdio::null());
    command.output().unwrap().status
}

#[test]
fn a_server_can_work() {
    assert_eq!(run("work", None).code(), Some(0));
    assert_eq!(run("abort", None).signal(), Some(SIGABRT), "which leaves a trace, as elsewhere");
}

#[test]
fn what_a_server_must_not_do_ends_it() {
    for task in FORBIDDEN {
        assert_eq!(run(task, None).signal(), Some(SIGSYS), "{task}");
    }
}

/// So it is the filter that ended them.
#[test]
fn where_it_is_logged_only_it_is_done() {
    for task in FORBIDDEN {
        assert_eq!(run(task, Some("log")).code(), Some(0), "{task}");
    }
}
