use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::journal::{Before, Journal};
use super::*;

/// Acts as the kernel does, for so many writes. Then whoever writes is as good as dead: nothing has an effect any more.
struct Pretend {
    host: MadeUp,
    left: AtomicUsize,
}

impl Pretend {
    fn new(host: &MadeUp, writes: usize) -> Arc<Self> {
        Arc::new(Self { host: MadeUp::at(host.root()), left: AtomicUsize::new(writes) })
    }
}

impl Kernel for Pretend {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| io::Error::other("dead"))?;
        self.host.write(path, text)
    }
}

const EVER: usize = usize::MAX;

/// Every function's driver and override.
fn state(host: &MadeUp) -> BTreeMap<String, (Option<String>, String)> {
    let functions = host::names(&host.path("sys/bus/pci/devices"));
    let only = |name: &str| {
        fs::read_to_string(host.path(&format!("sys/bus/pci/devices/{name}/driver_override"))).unwrap()
    };
    functions.into_iter().map(|name| (name.clone(), (host.driver_of(&name), only(&name)))).collect()
}

fn journals(host: &MadeUp) -> usize {
    host::names(&host.path("run/kagero-devices")).iter().filter(|name| name.ends_with(".journal")).count()
}

/// Two functions of a card and a drive with drivers, one without, one that vfio-pci has, and one whose driver somebody chose by hand.
fn mixed(folder: &tempfile::TempDir) -> MadeUp {
    let host = MadeUp::new(folder.path());
    host.function("0000:00:1c.0", 0x06_0400, "pcieport", Some(4))
        .function("0000:01:00.0", 0x03_0000, "nouveau", Some(1))
        .function("0000:01:00.1", 0x04_0300, "snd_hda_intel", Some(1))
        .function("0000:03:00.0", 0x01_0802, "nvme", Some(5))
        .function("0000:08:00.0", 0x02_0000, "-", Some(20))
        .function("0000:08:00.1", 0x02_0000, "vfio-pci", Some(20))
        .function("0000:08:00.2", 0x02_0000, "pci-special", Some(20));
    host.file("sys/bus/pci/devices/0000:08:00.2/driver_override", "pci-special\n");
    host
}

fn restored(host: &MadeUp) -> Restored {
    restore::restore(&seen(host), &*Pretend::new(host, EVER)).unwrap()
}

#[test]
fn functions_are_given_to_vfio_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let before = state(&host);
    let plan = plan(&host, "all", "eth1");
    let bound = bind_all(&seen(&host), Pretend::new(&host, EVER), &plan).unwrap();
    assert!(
        plan.functions.iter().all(|one| host.driver_of(&one.host.to_string()).as_deref() == Some("vfio-pci"))
    );
    for stays in ["0000:00:1c.0", "0000:08:00.1"] {
        assert_eq!(state(&host)[stays], before[stays]);
    }
    assert_eq!(journals(&host), 1);
    drop(bound);
    assert_eq!(state(&host), before);
    assert_eq!(journals(&host), 0);
}

#[test]
fn whatever_step_a_run_dies_after_restore_brings_all_back() {
    let whole = |host: &MadeUp, writes| {
        let plan = plan(host, "all", "eth1");
        let kernel = Pretend::new(host, writes);
        let bound = bind_all(&seen(host), Arc::clone(&kernel) as Arc<dyn Kernel>, &plan);
        let done = bound.is_ok();
        // Nothing after this has an effect: what is done when the value is dropped neither.
        kernel.left.store(0, Ordering::Relaxed);
        drop(bound);
        done
    };
    for writes in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let host = mixed(&folder);
        let before = state(&host);
        let done = whole(&host, writes);
        // The first function needs no more than its entry in the journal.
        assert_eq!(
            (journals(&host), state(&host) == before),
            if writes == 0 { (0, true) } else { (1, false) },
            "{writes}"
        );
        let restored = restored(&host);
        assert!(restored.complete, "{writes}: {}", restored.text);
        assert_eq!(state(&host), before, "{writes}: {}", restored.text);
        assert_eq!(journals(&host), 0);
        if done {
            // Four with a driver, in three steps; one without, in two.
            assert_eq!(writes, 4 * 3 + 2);
            assert_eq!(
                restored.text.lines().collect::<Vec<_>>(),
                [
                    "0000:08:00.2: back with pci-special",
                    "0000:08:00.0: back without a driver, as before",
                    "0000:03:00.0: back with nvme",
                    "0000:01:00.1: back with snd_hda_intel",
                    "0000:01:00.0: back with nouveau",
                ]
            );
            break;
        }
    }
}

#[test]
fn a_restore_that_dies_can_be_done_again() {
    for writes in 0..4 * 3 + 2 {
        let folder = tempfile::tempdir().unwrap();
        let host = mixed(&folder);
        let before = state(&host);
        let kernel = Pretend::new(&host, EVER);
        let bound =
            bind_all(&seen(&host), Arc::clone(&kernel) as Arc<dyn Kernel>, &plan(&host, "all", "eth1"));
        kernel.left.store(0, Ordering::Relaxed);
        drop(bound.unwrap());
        let first = restore::restore(&seen(&host), &*Pretend::new(&host, writes)).unwrap();
        assert!(!first.complete, "{writes}");
        let again = restored(&host);
        assert!(again.complete, "{}", again.text);
        assert_eq!(state(&host), before, "{writes}");
    }
}

#[test]
fn a_line_that_was_being_written_is_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let state_folder = seen(&host).journals();
    fs::create_dir_all(&state_folder).unwrap();
    let mut journal = Journal::create(&state_folder).unwrap();
    let before = |text: &str| Before { function: address(text), driver: Some("nvme".into()), only: None };
    journal.note(before("03:00.0")).unwrap();
    let first = fs::read(journal.path()).unwrap();
    journal.note(before("04:00.0")).unwrap();
    let both = fs::read(journal.path()).unwrap();
    let path = journal.path().to_owned();
    drop(journal);
    for length in 0..=both.len() {
        fs::write(&path, &both[..length]).unwrap();
        let found = journal::find(&state_folder).unwrap();
        let [journal::Found::Dead { journal, .. }] = &found[..] else { panic!("{found:?}") };
        let whole = usize::from(length >= first.len()) + usize::from(length == both.len());
        assert_eq!(journal.entries.len(), whole, "{length}");
    }
    fs::write(&path, b"{}\n").unwrap();
    let error = restore::restore(&seen(&host), &*Pretend::new(&host, EVER)).unwrap_err().to_string();
    assert!(
        error.contains(&format!("can't read its journals: {}", path.file_name().unwrap().display())),
        "{error}"
    );
}

#[test]
fn a_run_that_lives_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let before = state(&host);
    let first = plan(&host, "03:00.0", "eth1");
    let bound = bind_all(&seen(&host), Pretend::new(&host, EVER), &first).unwrap();
    let own = std::process::id();
    assert_eq!(
        restored(&host),
        Restored {
            text: format!("process {own} still runs, and keeps what it has: 0000:03:00.0\n"),
            complete: true
        }
    );
    let error = bind_all(&seen(&host), Pretend::new(&host, EVER), &first).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("0000:03:00.0: in use by another kagero (process {own}): end that first")
    );
    // Others may be had beside it.
    let other = plan(&host, "08:00.0", "eth1");
    let beside = bind_all(&seen(&host), Pretend::new(&host, EVER), &other).unwrap();
    assert_eq!(journals(&host), 2);
    drop((bound, beside));
    assert_eq!((state(&host), journals(&host)), (before, 0));
}

#[test]
fn the_next_run_puts_back_what_a_dead_one_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let before = state(&host);
    let kernel = Pretend::new(&host, EVER);
    let bound =
        bind_all(&seen(&host), Arc::clone(&kernel) as Arc<dyn Kernel>, &plan(&host, "03:00.0", "eth1"));
    kernel.left.store(0, Ordering::Relaxed);
    drop(bound.unwrap());
    let bound = bind_all(&seen(&host), Pretend::new(&host, EVER), &plan(&host, "08:00.0", "eth1")).unwrap();
    assert_eq!(host.driver_of("0000:03:00.0").as_deref(), Some("nvme"));
    drop(bound);
    assert_eq!((state(&host), journals(&host)), (before, 0));
}

#[test]
fn a_driver_that_does_not_take_a_function_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let plan = plan(&host, "03:00.0", "eth1");
    // Plain files: whatever is written to them, no driver comes or goes.
    let error = bind_all(&seen(&host), Arc::new(Sysfs), &plan).err().unwrap();
    assert_eq!(error.to_string(), "0000:03:00.0: vfio-pci did not take it: see the kernel's log (`dmesg`)");

    assert_eq!(journals(&host), 0, "and nothing is left to be put back");

    let kernel = Pretend::new(&host, 1);
    let error = bind_all(&seen(&host), kernel, &plan).err().unwrap();
    assert_eq!(
        error.to_string(),
        "0000:03:00.0: can't take it from nvme: dead: see the kernel's log (`dmesg`)"
    );
}

#[test]
fn what_can_not_be_put_back_is_told_of_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let host = mixed(&folder);
    let kernel = Pretend::new(&host, EVER);
    let plan = plan(&host, "01:00.0 03:00.0 08:00.0", "eth1");
    let bound = bind_all(&seen(&host), Arc::clone(&kernel) as Arc<dyn Kernel>, &plan).unwrap();
    kernel.left.store(0, Ordering::Relaxed);
    drop(bound);
    // The driver's module was unloaded, one function was pulled out, one has found another user.
    fs::remove_dir_all(host.path("sys/bus/pci/drivers/nvme")).unwrap();
    fs::remove_file(host.path("sys/bus/pci/devices/0000:08:00.0")).unwrap();
    host.file("proc/4711/comm", "qemu\n");
    fs::create_dir(host.path("proc/4711/fd")).unwrap();
    std::os::unix::fs::symlink("/dev/vfio/1", host.path("proc/4711/fd/9")).unwrap();
    let first = restored(&host);
    assert_eq!(
        first.text.lines().collect::<Vec<_>>(),
        [
            "0000:08:00.2: back with pci-special",
            "0000:08:00.0: not there any more",
            "0000:03:00.0: has no driver, and had nvme",
            "0000:01:00.1: in use by qemu (process 4711), left as it is",
            "0000:01:00.0: in use by qemu (process 4711), left as it is",
        ]
    );
    assert!(!first.complete && journals(&host) == 1);
    host.driver("nvme");
    fs::remove_dir_all(host.path("proc/4711")).unwrap();
    let second = restored(&host);
    assert!(second.complete && journals(&host) == 0, "{}", second.text);
    assert_eq!(host.driver_of("0000:03:00.0").as_deref(), Some("nvme"));
    assert_eq!(restored(&host).text, "nothing to put back\n");
}
