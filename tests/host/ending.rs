//! How a run is ended from outside, and what it leaves.

use std::process::{Command, Stdio};
use std::time::Instant;

use kagero_integration::process::Process;
use rustix::process::Signal;

use crate::lab::{Lab, PATIENCE};

fn ready(lab: &Lab) -> Process {
    let mut run = lab.start("idle", &["--cpus", "2"]);
    run.expect("ready\n", PATIENCE).unwrap();
    run
}

/// Somebody else can have the image now.
#[track_caller]
fn image_is_free(lab: &Lab) {
    let ended = lab.guest("idle", &["--expect", "ready"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.report["end"]["how"], "expected");
}

#[test]
fn signals_end_a_run_cleanly() {
    let Some(lab) = Lab::new() else { return };
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let mut run = ready(&lab);
        let asked = Instant::now();
        run.signal(signal).unwrap();
        assert_eq!(run.wait(PATIENCE).unwrap().code(), Some(128 + number));
        println!("signal {number}: ended after {:?}", asked.elapsed());
        let end = &lab.report()["end"];
        assert_eq!((end["how"].as_str(), end["signal"].as_i64()), (Some("signal"), Some(number.into())));
        image_is_free(&lab);
    }
}

#[test]
fn sigkill_leaves_the_image_usable() {
    let Some(lab) = Lab::new() else { return };
    ready(&lab).kill().unwrap();
    assert!(lab.report().is_null(), "half a report is none");
    image_is_free(&lab);
}

#[test]
fn a_second_run_on_the_same_image_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let first = ready(&lab);
    let image = lab.path("disk.img");
    let mut second = lab.run(&image, &["--console", "none"]);
    second.arg("--firmware").arg(lab.path("idle.bin"));
    let ended = lab.ended(second);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    let holder = format!("process {} (kagero)", first.pid());
    assert!(ended.stderr.contains(&*image.to_string_lossy()), "{}", ended.stderr);
    assert!(ended.stderr.contains(&holder) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn a_time_out_and_text_that_never_came_have_their_exit_codes_and_a_line() {
    let Some(lab) = Lab::new() else { return };
    let ended = lab.guest("idle", &["--expect", "login:", "--timeout", "300ms"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), "ready\n"));
    assert_eq!(ended.stderr, "kagero: time-out: the guest did not write \"login:\" within 300ms\n");
    let ended = lab.guest("smp", &["--expect", "login:"]);
    assert_eq!((ended.code, ended.report["end"]["exit_code"].as_u64()), (Some(1), Some(1)));
    assert_eq!(ended.stderr, "kagero: the guest switched its machine off before it wrote \"login:\"\n");
}

/// However far the start comes, what has begun by then ends, and one line tells why.
#[test]
fn a_start_that_fails_half_way_ends_with_one_line() {
    let Some(lab) = Lab::new() else { return };
    let (disk, firmware) = (lab.disk(), lab.firmware("smp", &[]));
    for (failed, files) in (8..64).enumerate() {
        let run = lab.run(&disk, &["--cpus", "3"]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""));
        command.arg(run.get_program()).args(run.get_args()).arg("--firmware").arg(&firmware);
        command.env_remove("KAGERO_LOG").stdin(Stdio::null());
        let ended = lab.ended(command);
        if ended.code == Some(0) {
            ended.said("00000003 CPUs\n");
            assert!(failed > 10, "{failed} starts failed");
            return;
        }
        assert!(matches!(ended.code, Some(1 | 2)), "{files} files: {ended:?}");
        let one_line = ended.stderr.starts_with("kagero: ") && ended.stderr.lines().count() == 1;
        assert!(one_line && ended.stderr.contains("Too many open files"), "{files} files: {ended:?}");
    }
    panic!("64 files are not enough");
}
