//! Set-up: the Debian packages that images and the lab need, and the lab's kernel.

use anyhow::{Context, Result, anyhow, bail, ensure};
use kagero_images::apt::{Source, codename, sources};
use kagero_images::cache_dir;
use kagero_images::command::{command, last_lines, text};
use kagero_images::kernel::Kernel;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the images and the lab are made with.
const PACKAGES: [&str; 19] = [
    // Guest images: bootstrap, partition, format, boot loader.
    "mmdebstrap",
    "fdisk",
    "e2fsprogs",
    "grub-common",
    "grub-pc-bin",
    // The lab's kernel and initramfs: unpack, modules.dep, user space.
    "xz-utils",
    "kmod",
    "busybox-static",
    // Networks for tests, and a target of others to compare with.
    "iproute2",
    "vblade",
    "iputils-ping",
    // Verifies data in the tiny guest.
    "fio",
    // The CD in a drive that is passed through.
    "genisoimage",
    // The lab's machine, qemu-img and qemu-nbd, and firmware for Kagero's guests.
    "ipxe-qemu",
    "qemu-utils",
    "qemu-system-common",
    QEMU,
    "seabios",
    "ovmf",
];

const QEMU: &str = "qemu-system-x86";

/// These come from the release's backports where the release itself has an older QEMU.
const FROM_BACKPORTS: [&str; 3] = [QEMU, "qemu-system-common", "seabios"];

/// QEMU 10 emulates SVM and interrupt remapping as the lab needs them; older ones were not tried.
const QEMU_MAJOR: u32 = 10;

/// Packages, kernel, the Debian image and the builds take about this much.
const SPACE_NEEDED: u64 = 8 << 30;

/// Installs what is missing; a moment when nothing is.
pub(crate) fn setup() -> Result<()> {
    let missing = missing(&installed()?);
    if !missing.is_empty() {
        enough_space(Path::new("/"))?;
        println!("installing Debian packages: {}", missing.join(" "));
        install(&missing)?;
        let still = self::missing(&installed()?);
        ensure!(still.is_empty(), "apt says that all went well, but these are missing: {}", still.join(" "));
    }
    fs::create_dir_all(cache_dir()).with_context(|| format!("{}", cache_dir().display()))?;
    if !cache_dir().join("kernel/complete").exists() {
        enough_space(&cache_dir())?;
        println!("fetching Debian's kernel for the lab");
    }
    Kernel::fetch()?;
    Ok(())
}

/// The installed ones of our packages, with their versions.
fn installed() -> Result<BTreeMap<String, String>> {
    let mut query = command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"]);
    // It fails when one is unknown, and names the others all the same.
    let said = query.args(PACKAGES).output().context("dpkg-query: Kagero's set-up needs Debian")?;
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [package, "installed", version] => Some((package.to_owned(), version.to_owned())),
        _ => None,
    };
    Ok(String::from_utf8_lossy(&said.stdout).lines().filter_map(line).collect())
}

fn missing(installed: &BTreeMap<String, String>) -> Vec<&'static str> {
    let lacks = |package: &&str| match installed.get(*package) {
        None => true,
        Some(version) => *package == QEMU && major(version).is_none_or(|major| major < QEMU_MAJOR),
    };
    PACKAGES.into_iter().filter(lacks).collect()
}

/// The first number of the upstream version: 10 of `1:10.0.2+ds-2`.
fn major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn install(packages: &[&str]) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "not root, and Debian packages are missing; run `cargo xtask setup` as root, or install them yourself: {}",
        packages.join(" ")
    );
    // Other sources of this machine may be out of order, which is not our concern unless the installation fails.
    let updated = update();
    fetch_and_install(packages).map_err(|e| match updated {
        Err(earlier) => anyhow!("{earlier:#}; then {e:#}"),
        Ok(()) => e,
    })
}

fn fetch_and_install(packages: &[&str]) -> Result<()> {
    let candidate = text(command(["apt-cache", "policy", QEMU]).env("LC_ALL", "C"))?;
    let candidate =
        candidate.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).unwrap_or("").to_owned();
    let new_enough = major(&candidate).is_some_and(|major| major >= QEMU_MAJOR);
    let (newer, usual): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|package| !new_enough && FROM_BACKPORTS.contains(package));
    if !usual.is_empty() {
        apt_get(&["install"], &usual)?;
    }
    if !newer.is_empty() {
        let suite = format!("{}-backports", codename()?);
        if add_suite(&suite)? {
            let _ = update();
        }
        apt_get(&["install", "-t", &suite], &newer)?;
    }
    Ok(())
}

/// Unlike plain `apt-get update`, fails when any source could not be fetched.
fn update() -> Result<()> {
    apt_get(&["update", "-o", "APT::Update::Error-Mode=any"], &[])
}

fn apt_get(words: &[&str], packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").stdin(std::process::Stdio::null());
    apt.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"]);
    let output = apt.arg("--no-install-recommends").args(words).args(packages).output().context("apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    bail!("apt-get {}: {}", words[0], explain(&said))
}

/// One line with the mend, for what commonly goes wrong.
fn explain(said: &str) -> String {
    let mend = [
        ("No space left on device", "the disk is full; free some space and try again"),
        ("don't have enough free space", "the disk is full; free some space and try again"),
        ("Temporary failure resolving", "Debian's mirror can't be reached; check the network or /etc/apt"),
        ("Could not resolve", "Debian's mirror can't be reached; check the network or /etc/apt"),
        ("Could not connect", "Debian's mirror can't be reached; check the network or /etc/apt"),
        ("Failed to fetch", "Debian's mirror doesn't answer as it should; check the network or /etc/apt"),
        (
            "has no installation candidate",
            "apt does not know where to get this; check /etc/apt for Debian's component main",
        ),
        ("Unable to locate package", "apt knows no such package; check /etc/apt for Debian's component main"),
        ("Could not get lock", "another apt is running; wait for it and try again"),
    ];
    // The first error is the cause of the others.
    let error = said.lines().find(|line| line.starts_with("E:"));
    let what = error.map_or_else(|| last_lines(said, 3), |line| line.trim_end().to_owned());
    match mend.iter().find(|(sign, _)| said.contains(sign)) {
        Some((_, mend)) => format!("{mend} ({what})"),
        None => what,
    }
}

/// Adds a suite of the archive that this machine already uses, unless it is there.
fn add_suite(suite: &str) -> Result<bool> {
    let known = sources(Path::new("/etc/apt"))?;
    if known.iter().any(|source| source.suite == suite) {
        return Ok(false);
    }
    let codename = codename()?;
    let base = known.iter().find(|source| source.suite == codename);
    let base = base.with_context(|| format!("/etc/apt names no source for Debian's {codename}"))?;
    let path = "/etc/apt/sources.list.d/kagero-backports.list";
    fs::write(path, backports(base, suite)).context(path)?;
    println!("added {suite} in {path}");
    Ok(true)
}

fn backports(base: &Source, suite: &str) -> String {
    format!("# Added by Kagero's `cargo xtask setup`, for QEMU.\n{}\n", base.with_suite(suite).line())
}

fn enough_space(at: &Path) -> Result<()> {
    let fs = rustix::fs::statvfs(at).with_context(|| format!("{}", at.display()))?;
    let free = fs.f_bavail * fs.f_frsize;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        free >= SPACE_NEEDED,
        "{}: {:.1} GiB free, {:.0} GiB needed; free some, or set CARGO_TARGET_DIR",
        at.display(),
        gib(free),
        gib(SPACE_NEEDED)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_upstream_part() {
        assert_eq!(major("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(major("7.2"), Some(7));
        assert_eq!(major("(none)"), None);
        let old = PACKAGES.iter().map(|package| (package.to_string(), "1:7.2+dfsg-7".to_owned())).collect();
        assert_eq!(missing(&old), [QEMU]);
        assert_eq!(missing(&BTreeMap::new()), PACKAGES);
    }

    #[test]
    fn the_backports_come_from_the_same_archive() {
        let base = Source {
            uri: "mirror://m/debian".into(),
            suite: "stable".into(),
            components: vec!["main".into(), "contrib".into()],
            signed_by: Some("/k.gpg".into()),
        };
        let file = backports(&base, "stable-backports");
        assert_eq!(
            file.lines().nth(1),
            Some("deb [signed-by=/k.gpg] mirror://m/debian stable-backports main")
        );
    }

    #[test]
    fn common_failures_come_with_their_mend() {
        let line = explain(
            "Err:1 x\nE: Failed to fetch x  Temporary failure resolving 'm'\nE: Some index files failed\n",
        );
        assert!(line.starts_with("Debian's mirror can't be reached"), "{line}");
        assert!(!line.contains('\n'));
        assert_eq!(explain("E: something new\n"), "E: something new");
    }
}
