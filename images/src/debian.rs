//! The Debian guest: an ordinary Debian 12 on an ordinary disk, with systemd, initramfs-tools and GRUB. Nothing in it
//! knows about Kagero; it boots in plain QEMU and would boot on a PC.
//!
//! It is meant for developers and tests, so a few things are set that a person would also set for that:
//!
//! - `root` logs in without a password, on the serial console too.
//! - GRUB waits for nobody and the kernel is `quiet`: output to an emulated serial port is slow.
//! - The initramfs holds the drivers for a PC's disks and ext4, and no others (`MODULES=list`): firmware reads it with
//!   programmed I/O, where every sector costs several exits.
//! - What a system does at its first boot is done, and work behind a test's back (timers of apt, e2scrub, fstrim) and logins on
//!   virtual terminals are masked.
//! - Manuals, translations and documentation except for copyright notices are left out.

use crate::apt::{Source, acquire_options, codename, sources};
use crate::command::{command, run};
use crate::disk;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// The release that is built, whatever the host's is.
const SUITE: &str = "bookworm";

/// On top of Debian's essential packages and apt: what boots, and what tests of disks use.
const PACKAGES: &str = "systemd-sysv,udev,kmod,linux-image-amd64,initramfs-tools,zstd,e2fsprogs,fdisk,pciutils,\
                        iproute2,hdparm,fio";

/// The file system's UUID, the same in every image.
const UUID: &str = "6b616765-726f-4000-8000-64656269616e";

/// Drivers in the initramfs: the disks of a PC, as PIIX IDE and AHCI, and the root file system.
const INITRAMFS_MODULES: &str = "ata_piix\nahci\nsd_mod\next4\ncrc32c_generic\n";

/// In GRUB's core image, so that it reads no module files.
const GRUB_MODULES: [&str; 10] = [
    "biosdisk",
    "part_msdos",
    "ext2",
    "serial",
    "terminal",
    "normal",
    "linux",
    "echo",
    "search",
    "search_fs_uuid",
];

/// Where Debian's GRUB for BIOS is.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Background work that would disturb tests, and logins on virtual terminals that tests have no screen for.
const MASKED: [&str; 8] = [
    "getty-static.service",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
];

/// What to build. [`Image::default`] is the image of the tests.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where the image goes.
    pub output: PathBuf,
    /// The disk's size in bytes.
    pub size: u64,
}

impl Default for Image {
    fn default() -> Self {
        Image { output: crate::cache_dir().join("images/debian.img"), size: 2 << 30 }
    }
}

impl Image {
    /// Builds the image unless it is there and was built from the same recipe. Returns whether it was built.
    /// The packages' versions are those of the day it is built.
    ///
    /// # Errors
    /// Not root, a tool is missing, apt can't fetch, the disk is full, or [`Self::size`] is too small.
    pub fn ensure(&self) -> Result<bool> {
        let stamp = self.output.with_extension("recipe");
        let recipe = self.recipe();
        let have = fs::read_to_string(&stamp).unwrap_or_default();
        if self.output.exists() && have == recipe {
            return Ok(false);
        }
        let _ = fs::remove_file(&stamp);
        self.build().with_context(|| format!("building {}", self.output.display()))?;
        fs::write(&stamp, recipe)?;
        Ok(true)
    }

    /// Builds the image, whether it is there or not. It appears under its name only when it is complete.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn build(&self) -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "not root; mmdebstrap makes files of many owners");
        ensure!(self.size.is_multiple_of(512), "a size of {} bytes is not a multiple of 512", self.size);
        let folder = self.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        let work = tempfile::Builder::new().prefix("debian-").tempdir_in(folder)?;
        let (tree, core, image) =
            (work.path().join("root"), work.path().join("core.img"), work.path().join("disk.img"));

        bootstrap(&tree, work.path())?;
        configure(&tree)?;
        disk::ext4_disk(&image, self.size, &tree, UUID)?;
        run(command(["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
            .arg(&core)
            .args(GRUB_MODULES))?;
        disk::install_grub(&image, &Path::new(GRUB).join("boot.img"), &core)?;
        fs::rename(&image, &self.output)?;
        Ok(())
    }

    /// Changes when what would be built changes.
    fn recipe(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (include_str!("debian.rs"), include_str!("disk.rs"), self.size).hash(&mut hasher);
        format!("{:016x}\n", hasher.finish())
    }
}

/// Unpacks and configures the packages into `tree`.
fn bootstrap(tree: &Path, work: &Path) -> Result<()> {
    let options = work.join("apt.conf");
    fs::write(&options, acquire_options()?)?;
    let mut mmdebstrap =
        command(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
    mmdebstrap.arg(format!("--include={PACKAGES}"));
    mmdebstrap.arg(format!("--aptopt={}", options.display()));
    for pattern in ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    mmdebstrap.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
    // Before the kernel is configured, which makes its initramfs.
    mmdebstrap.arg(format!(
        r#"--essential-hook=
        mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
        printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=19\n' >"$1/etc/initramfs-tools/conf.d/disks"
        printf '{}' >"$1/usr/share/initramfs-tools/modules.d/disks"
        printf 'UUID={UUID} / ext4 errors=remount-ro 0 1\n' >"$1/etc/fstab""#,
        INITRAMFS_MODULES.replace('\n', "\\n"),
    ));
    mmdebstrap.arg(r#"--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap""#);
    mmdebstrap.arg(SUITE).arg(tree);
    for source in guest_sources(&sources(Path::new("/etc/apt"))?, &codename()?)? {
        mmdebstrap.arg(source.line());
    }
    run(&mut mmdebstrap)
}

/// This machine's mirrors with the guest's suites.
fn guest_sources(ours: &[Source], codename: &str) -> Result<Vec<Source>> {
    let mut found: Vec<Source> = Vec::new();
    for part in ["", "-updates", "-security"] {
        let suite = format!("{codename}{part}");
        if let Some(source) = ours.iter().find(|source| source.suite == suite) {
            found.push(source.with_suite(&format!("{SUITE}{part}")));
        }
    }
    ensure!(!found.is_empty(), "/etc/apt names no source for Debian's {codename}");
    Ok(found)
}

/// What a person would set after the installation.
fn configure(tree: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap_or(tree))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("{}", path.display()))
    };
    write("etc/hostname", "debian\n")?;
    write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 debian\n")?;
    write("etc/machine-id", &format!("{}\n", UUID.replace('-', "")))?;
    run(command(["chroot"]).arg(tree).args(["passwd", "--quiet", "--delete", "root"]))?;
    run(command(["chroot"]).arg(tree).args(["systemctl", "--quiet", "mask"]).args(MASKED))?;

    let boot = tree.join("boot");
    let newest = |prefix: &str| -> Result<String> {
        let names = fs::read_dir(&boot)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(prefix)).max().with_context(|| format!("no {prefix} in /boot"))
    };
    write("boot/grub/grub.cfg", &grub_configuration(&newest("vmlinuz-")?, &newest("initrd.img-")?))?;
    // Newer than /usr: systemd need not rebuild its caches at the next boot (systemd-update-done.service(8)).
    write("etc/.updated", "")?;
    write("var/.updated", "")
}

fn grub_configuration(kernel: &str, initrd: &str) -> String {
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input serial\n\
         terminal_output serial\n\
         search --no-floppy --fs-uuid --set=root {UUID}\n\
         echo Loading Debian ...\n\
         linux /boot/{kernel} root=UUID={UUID} ro quiet console=ttyS0,115200\n\
         initrd /boot/{initrd}\n\
         boot\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_use_the_hosts_mirrors() {
        let source = |uri: &str, suite: &str| Source {
            uri: uri.into(),
            suite: suite.into(),
            components: vec!["main".into(), "contrib".into()],
            signed_by: None,
        };
        let ours = [
            source("a", "stable"),
            source("b", "trixie"),
            source("c", "trixie-security"),
            source("d", "other"),
        ];
        let lines: Vec<_> = guest_sources(&ours, "trixie").unwrap().iter().map(Source::line).collect();
        assert_eq!(lines, ["deb b bookworm main", "deb c bookworm-security main"]);
        assert!(guest_sources(&ours[..1], "trixie").is_err());
    }

    #[test]
    fn an_image_of_odd_size_is_refused() {
        let image = Image { output: "/nonexistent/kagero.img".into(), size: 1000 };
        assert!(image.build().is_err());
    }
}
