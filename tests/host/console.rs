//! The serial console: what is typed, what is said, and who waits for whom.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, PATIENCE};

#[test]
fn what_is_typed_reaches_the_guest_polled_and_by_interrupt() {
    let Some(lab) = Lab::new() else { return };
    let mut run = lab.start("echo", &[]);
    run.expect("type\n", PATIENCE).unwrap();
    run.input(b"hello\n").unwrap();
    run.expect("hello\ntype on\n", PATIENCE).unwrap();
    // One by one, and much more at once than the port and its queue hold.
    for key in ["a", "b", "c"] {
        run.input(key.as_bytes()).unwrap();
        run.expect(key, PATIENCE).unwrap();
    }
    let text: String = (0..2000).map(|n| format!("{n:04x}")).collect();
    run.input(format!("{text}q").as_bytes()).unwrap();
    assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(0));
    let log = fs::read_to_string(lab.path("console.log")).unwrap();
    assert!(log.ends_with(&format!("abc{text}")), "{} bytes came back", log.len());
    assert_eq!(lab.report()["console"]["bytes_in"], 6 + 3 + 8000 + 1);
}

/// All of it at once, before the guest has looked at its port, and before it has enabled an interrupt.
#[test]
fn what_is_typed_ahead_is_not_lost() {
    let Some(lab) = Lab::new() else { return };
    let mut run = lab.start("echo", &[]);
    run.input(b"first line\nand the second q").unwrap();
    assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(0));
    let log = fs::read_to_string(lab.path("console.log")).unwrap();
    assert_eq!(log, "type\nfirst line\ntype on\nand the second ");
}

/// The byte in the port is gone with a reset, as on a real machine, but not what waits for it.
#[test]
fn what_is_typed_ahead_of_a_reset_is_not_lost() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.disk();
    let image = File::options().write(true).open(&disk).unwrap();
    image.write_all_at(&[0; 512], 512).unwrap();
    let mut command = lab.run(&disk, &[]);
    command.arg("--firmware").arg(lab.firmware("resets", &[]));
    let mut run = kagero_integration::process::Process::start(command, &lab.path("console.log")).unwrap();
    // One key for the first start, one for the last, and as many as may go with resets.
    run.input(&[b'x'; 20]).unwrap();
    assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(0));
    assert_eq!(lab.report()["boots"], 13);
}

#[test]
fn the_console_goes_to_a_file() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.path("boot.log");
    let ended = lab.guest("smp", &["--console", file.to_str().unwrap()]);
    ended.said("");
    assert_eq!(fs::read_to_string(file).unwrap(), "00000001 CPUs\n");
    assert_eq!(ended.report["console"]["bytes_out"], 14);
}

/// Nobody reads what CPU 0 says: it waits, and CPU 1 uses the clock and the disk all the same.
#[test]
fn a_console_that_nobody_reads_holds_up_only_who_talks() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.disk();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(writer.as_fd(), 4096).unwrap();
    let mut command = lab.run(&disk, &["--cpus", "2"]);
    command.arg("--firmware").arg(lab.firmware("flood", &[])).stdout(Stdio::from(writer));
    let mut child = command.spawn().unwrap();
    drop(command);

    // What sector 1 says: how often it was written, and how much CPU 0 has said so far.
    let image = File::open(&disk).unwrap();
    let counts = || {
        let mut words = [0; 12];
        image.read_exact_at(&mut words, 512).unwrap();
        let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().unwrap());
        (word(4), word(8))
    };
    let deadline = Instant::now() + PATIENCE;
    let wait = || {
        assert!(Instant::now() < deadline, "CPU 1 is held up too, or CPU 0 is not: {:?}", counts());
        std::thread::sleep(Duration::from_millis(10));
    };
    while counts().1 == 0 {
        wait();
    }
    loop {
        let (written, said) = counts();
        while counts().0 < written + 50 {
            wait();
        }
        if counts().1 == said {
            break;
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
