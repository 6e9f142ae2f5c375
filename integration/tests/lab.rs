//! The lab itself. These start an emulated machine: `cargo xtask test` runs them one after the other, or
//! `cargo test -p kagero-integration --test lab -- --ignored --test-threads 1`.

use kagero_integration::exits::{self, Counter};
use kagero_integration::l1::L1;
use kagero_integration::network::Namespace;
use kagero_integration::process::Process;
use std::fs;
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

#[test]
#[ignore = "needs the lab"]
fn guests_run_in_l1_and_their_exits_are_counted_exactly() {
    let l1 = L1::builder().program(env!("CARGO_BIN_EXE_kvm-smoke")).start().unwrap();
    let counter = Counter::start(&l1).unwrap();
    let before = counter.read().unwrap();
    let said = l1.run("kvm-smoke 1000", SOON).unwrap().expect_success().unwrap();
    assert_eq!(said, "1000 writes arrived\n");
    let exits = counter.read().unwrap().since(&before);
    println!("{exits:?}");
    assert_eq!(exits.port(0x2ff0), 1000);
    assert_eq!(exits.userspace.get(&exits::IO), Some(&1000));
    assert_eq!(exits.userspace_total(), 1001, "and one for the halt");
}

/// Frames between L1's network card and a target on L0: vblade there, the kernel's own aoe driver here.
#[test]
#[ignore = "needs the lab"]
fn l1_reaches_a_target_on_l0() {
    for mtu in [1500, 9000] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        let content: Vec<u8> = (0..1u32 << 18).flat_map(|word| word.to_le_bytes()).collect();
        fs::write(&image, &content).unwrap();

        let network = Namespace::new().unwrap();
        network.add_tap("tap0", mtu).unwrap();
        let mut vblade = network.command("vblade");
        vblade.args(["7", "1", "tap0"]).arg(&image);
        let mut vblade = Process::start(vblade, &folder.path().join("vblade.log")).unwrap();
        let l1 = L1::builder().network(&network, "tap0", mtu).start().unwrap();
        let script = "modprobe aoe aoe_iflist=eth0 && wait_for /dev/etherd/e7.1 && cat /dev/etherd/e7.1 >/share/read &&
            dd if=/dev/zero of=/dev/etherd/e7.1 bs=4096 count=1 conv=fsync 2>/dev/null; cat /sys/class/net/eth0/mtu";
        let said = l1.run(script, SOON).unwrap().expect_success().unwrap();
        assert_eq!(said, format!("{mtu}\n"));
        assert_eq!(fs::read(l1.share().join("read")).unwrap(), content);
        assert!(fs::read(&image).unwrap().starts_with(&[0; 4096]));
        vblade.kill().unwrap();
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_dead_l1_is_noticed() {
    let l1 = L1::builder().start().unwrap();
    let mut job = l1.spawn("echo alive; sleep 1000").unwrap();
    job.expect("alive\n", SOON).unwrap();
    let qemu = rustix::process::Pid::from_raw(l1.pid() as i32).unwrap();
    rustix::process::kill_process(qemu, rustix::process::Signal::KILL).unwrap();
    let error = job.wait(SOON).unwrap_err();
    assert!(error.to_string().contains("L1 died"), "{error}");
    assert!(l1.run("true", SOON).is_err());
}
