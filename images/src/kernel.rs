//! Debian's kernel, fetched but not installed: bzImage, ELF and modules below the cache directory.

use crate::command::{command, output, run, text};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    root: PathBuf,
    version: String,
    /// Module file, relative to the module directory, and the files that it needs.
    depends: BTreeMap<String, Vec<String>>,
}

impl Kernel {
    /// The kernel in the cache; fetched there first when there is none. Once there it stays: the kernel under
    /// the tests changes only when someone removes `target/lab/kernel`.
    ///
    /// # Errors
    /// apt can't download the package, the disk is full, or a tool is missing.
    pub fn fetch() -> Result<Kernel> {
        let cache = crate::cache_dir();
        let root = cache.join("kernel");
        if !root.join("complete").exists() {
            fs::create_dir_all(&cache).with_context(|| format!("{}", cache.display()))?;
            // Unpacked beside it and renamed, so that half a kernel is never taken for one.
            let new = tempfile::Builder::new().prefix("kernel-").tempdir_in(&cache)?;
            unpack_package(new.path()).context("fetching Debian's kernel")?;
            let _ = fs::remove_dir_all(&root);
            // Another process may have been quicker, with the same kernel.
            if let Err(e) = fs::rename(new.path(), &root)
                && !root.join("complete").exists()
            {
                return Err(e).with_context(|| format!("{}", root.display()));
            }
        }
        Kernel::open(&root)
    }

    /// An already unpacked kernel.
    fn open(root: &Path) -> Result<Kernel> {
        let version = fs::read_to_string(root.join("complete"))?.trim().to_owned();
        let dep = fs::read_to_string(root.join("lib/modules").join(&version).join("modules.dep"))?;
        Ok(Kernel { root: root.to_owned(), version, depends: parse_modules_dep(&dep) })
    }

    /// The release, as uname -r says it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The compressed kernel as Debian ships it, for a boot loader or `--kernel`.
    pub fn bzimage(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The uncompressed ELF, with a PVH entry: boots without the time to decompress.
    pub fn vmlinux(&self) -> PathBuf {
        self.root.join("vmlinux")
    }

    /// The directory that module files are relative to.
    pub fn module_dir(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.version)
    }

    /// The files of the named modules and of all they need, each after those that it needs, relative to
    /// [`Self::module_dir`]. Modules that are built in have no file and are left out.
    ///
    /// # Errors
    /// A module that this kernel doesn't have.
    pub fn module_files(&self, names: &[&str]) -> Result<Vec<String>> {
        let builtin = fs::read_to_string(self.module_dir().join("modules.builtin"))?;
        let builtin: HashSet<String> = builtin.lines().map(module_name).collect();
        let mut ordered = Vec::new();
        for name in names.iter().map(|name| name.replace('-', "_")) {
            match self.depends.iter().find(|(file, _)| module_name(file) == name) {
                // modules.dep names the nearest need first, and holds the whole closure.
                Some((file, needs)) => ordered.extend(needs.iter().rev().chain([file]).cloned()),
                None if builtin.contains(&name) => {}
                None => bail!("kernel {} has no module {name}", self.version),
            }
        }
        let mut seen = HashSet::new();
        ordered.retain(|file| seen.insert(file.clone()));
        Ok(ordered)
    }

    /// The `modules.dep` lines of `files`.
    pub fn modules_dep(&self, files: &[String]) -> String {
        let line = |file: &String| Some(format!("{file}: {}\n", self.depends.get(file)?.join(" ")));
        files.iter().filter_map(line).collect()
    }
}

/// "kernel/drivers/ata/ata_piix.ko" is ata_piix; dashes in file names stand for underscores.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

fn parse_modules_dep(text: &str) -> BTreeMap<String, Vec<String>> {
    let entry = |line: &str| {
        let (file, needs) = line.split_once(':')?;
        Some((file.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
    };
    text.lines().filter_map(entry).collect()
}

fn unpack_package(into: &Path) -> Result<()> {
    // The package linux-image-amd64 is empty and depends on the one with the kernel in it.
    let depends = text(command(["apt-cache", "depends", "linux-image-amd64"]).env("LC_ALL", "C"))?;
    let package = depends
        .lines()
        .find_map(|line| {
            line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
        })
        .context("apt knows no linux-image-amd64; run `apt-get update`")?;
    run(command(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(into))?;
    let deb = fs::read_dir(into)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .context("apt-get download left no package")?;
    run(command(["dpkg", "-x"]).arg(&deb).arg(into))?;
    fs::remove_file(&deb)?;

    let version = package.trim_start_matches("linux-image-");
    run(command(["depmod", "-b"]).arg(into).arg(version))?;
    let bzimage = fs::read(into.join("boot").join(format!("vmlinuz-{version}")))?;
    let payload = xz_payload(&bzimage).context("vmlinuz holds no XZ stream")?;
    fs::write(into.join("vmlinux"), unxz(payload, into)?)?;
    fs::write(into.join("complete"), version)?;
    Ok(())
}

/// The compressed kernel inside a bzImage (Documentation/arch/x86/boot.rst, `payload_offset` and
/// `payload_length`), without the four bytes of uncompressed length that follow the XZ stream.
fn xz_payload(bzimage: &[u8]) -> Option<&[u8]> {
    let field = |at: usize| Some(u32::from_le_bytes(bzimage.get(at..at + 4)?.try_into().ok()?) as usize);
    let setup_sectors = usize::from(*bzimage.get(0x1f1)?);
    let start = (setup_sectors + 1).checked_mul(512)?.checked_add(field(0x248)?)?;
    let end = start.checked_add(field(0x24c)?.checked_sub(4)?)?;
    bzimage.get(start..end).filter(|payload| payload.starts_with(b"\xfd7zXZ\0"))
}

fn unxz(stream: &[u8], scratch: &Path) -> Result<Vec<u8>> {
    let path = scratch.join("vmlinux.xz");
    fs::write(&path, stream)?;
    let plain = output(command(["xz", "-dc"]).arg(&path).stderr(Stdio::piped()))?;
    fs::remove_file(&path)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_found_by_the_boot_header() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&14u32.to_le_bytes());
        image[1040..1050].copy_from_slice(b"\xfd7zXZ\0abcd");
        assert_eq!(xz_payload(&image), Some(&b"\xfd7zXZ\0abcd"[..]));
        image[1040] = 0;
        assert_eq!(xz_payload(&image), None);
        assert_eq!(xz_payload(&image[..600]), None);
    }

    #[test]
    fn module_names_ignore_folder_ending_and_dashes() {
        assert_eq!(module_name("kernel/arch/x86/kvm/kvm-amd.ko"), "kvm_amd");
        assert_eq!(module_name("kernel/fs/ext4/ext4.ko.xz"), "ext4");
    }
}
