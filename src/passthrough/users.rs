//! Who has functions open through VFIO.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use kagero_vfio::is_vfio;

use super::host::{Host, names, text};
use super::{Address, Function};

/// Notes with each function that VFIO has which process uses it, or its group.
pub(super) fn find(host: &Host, functions: &mut [Function]) {
    if !functions.iter().any(Function::is_ready) {
        return;
    }
    let open = open_files(host);
    for function in functions.iter_mut().filter(|function| function.is_ready()) {
        function.user = user(host, function.address, function.group, &open);
    }
    // Of a group, all are whose one is.
    let groups: BTreeMap<_, _> =
        functions.iter().filter_map(|one| Some((one.group?, one.user.clone()?))).collect();
    for function in functions {
        function.user = function.group.and_then(|group| groups.get(&group).cloned()).or(function.user.take());
    }
}

/// Which process has a function that VFIO has, or its group.
pub(super) fn of(host: &Host, address: Address) -> Option<String> {
    let vfio = host.driver(address).is_some_and(|driver| is_vfio(&driver));
    vfio.then(|| user(host, address, host.group(address), &open_files(host))).flatten()
}

fn user(
    host: &Host,
    address: Address,
    group: Option<u32>,
    open: &BTreeMap<PathBuf, String>,
) -> Option<String> {
    let group = group.map(|group| PathBuf::from(format!("/dev/vfio/{group}")));
    let device = host.character_device(address);
    let device = device.and_then(|path| Some(PathBuf::from("/dev/vfio/devices").join(path.file_name()?)));
    group.iter().chain(&device).find_map(|path| open.get(path).cloned()).or_else(|| {
        // Whoever may not look into others' open files still hears that there are some: a group is opened once at a time.
        let node = host.path(group.as_ref()?.strip_prefix("/").ok()?);
        let error = OpenOptions::new().read(true).write(true).open(node).err()?;
        (error.raw_os_error() == Some(libc::EBUSY)).then(|| "another process".to_owned())
    })
}

/// VFIO's files that processes have open, and by which.
fn open_files(host: &Host) -> BTreeMap<PathBuf, String> {
    let mut open = BTreeMap::new();
    let processes = host.path("proc");
    for process in names(&processes).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let folder = processes.join(&process);
        for file in names(&folder.join("fd")) {
            let Ok(path) = fs::read_link(folder.join("fd").join(file)) else { continue };
            if path.starts_with("/dev/vfio") {
                let name = text(&folder.join("comm")).unwrap_or_default();
                open.insert(path, format!("{name} (process {process})"));
            }
        }
    }
    open
}
