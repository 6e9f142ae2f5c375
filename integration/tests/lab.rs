//! The lab itself. These start an emulated machine: `cargo xtask test` runs them one after the other, or
//! `cargo test -p kagero-integration --test lab -- --ignored --test-threads 1`.

use kagero_integration::l1::L1;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs the lab"]
fn l1_runs_commands_and_powers_off() {
    let l1 = L1::builder().start().unwrap();
    println!("L1 ready in {:.1} s, {} retries", l1.ready_in().as_secs_f64(), l1.retries());
    let said = l1.run("uname -r; echo oops >&2; exit 7", SOON).unwrap();
    assert_eq!(said.code, 7);
    assert!(said.stdout.ends_with("-amd64\n"), "{said:?}");
    assert_eq!(said.stderr, "oops\n");
    l1.run("test -c /dev/kvm && test -c /dev/net/tun && cat /sys/module/kvm_amd/parameters/npt", SOON)
        .unwrap()
        .expect_success()
        .unwrap();

    std::fs::write(l1.share().join("in"), b"from L0").unwrap();
    l1.run("tr a-z A-Z </share/in >/share/out", SOON).unwrap().expect_success().unwrap();
    assert_eq!(std::fs::read(l1.share().join("out")).unwrap(), b"FROM L0");
    l1.power_off().unwrap();
}

#[test]
#[ignore = "needs the lab"]
fn jobs_run_side_by_side_take_input_and_are_killed() {
    let l1 = L1::builder().start().unwrap();
    let mut echo = l1.spawn_typed("while read -r line; do echo \"heard $line\"; done").unwrap();
    let mut sleeper = l1.spawn("sleep 1000 & wait").unwrap();
    echo.input(b"one\n").unwrap();
    echo.expect("heard one\n", SOON).unwrap();
    echo.input(b"two\n").unwrap();
    echo.expect("heard two\n", SOON).unwrap();
    assert_eq!(sleeper.exit_code(), None);
    sleeper.signal("KILL").unwrap();
    assert_eq!(sleeper.wait(SOON).unwrap().code, 137);
    assert!(!l1.run("pidof sleep", SOON).unwrap().success(), "the whole job was killed");
    let error = l1.run("sleep 1000", Duration::from_millis(300)).unwrap_err();
    assert!(error.to_string().contains("still ran"), "{error}");
    l1.run("kill -9 $(pidof nothing) 2>/dev/null; true", SOON).unwrap();
}
