//! An initramfs of busybox, kernel modules, programs with their shared libraries, and scripts.

use crate::command::{command, output};
use crate::cpio::{Kind, Writer};
use crate::kernel::Kernel;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// What will be in the archive, by path without leading slash.
#[derive(Debug, Clone, Default)]
pub struct Initramfs {
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    Directory,
    Text(String),
    /// A file of this machine, read when the archive is written.
    Copy(PathBuf),
    Symlink(String),
    CharDevice(u32, u32),
}

impl Initramfs {
    /// busybox with all its applets, the usual empty directories and a console.
    ///
    /// # Errors
    /// busybox-static is not installed.
    pub fn new() -> Result<Initramfs> {
        let mut this = Initramfs::default();
        for directory in ["dev", "proc", "sys", "run", "tmp", "mnt", "root"] {
            this.members.insert(directory.into(), Member::Directory);
        }
        this.insert("dev/console", Member::CharDevice(5, 1));
        this.insert("dev/null", Member::CharDevice(1, 3));
        this.insert("bin/busybox", Member::Copy(BUSYBOX.into()));
        let applets = output(&mut command([BUSYBOX, "--list"])).context("Debian package busybox-static")?;
        for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
            this.insert(&format!("bin/{applet}"), Member::Symlink("busybox".into()));
        }
        // Programs look for these where Debian has them.
        this.insert("sbin", Member::Symlink("bin".into()));
        this.insert("usr/bin", Member::Symlink("../bin".into()));
        this.insert("usr/sbin", Member::Symlink("../bin".into()));
        Ok(this)
    }

    /// The script that the kernel starts, `/init`.
    pub fn init(&mut self, script: &str) -> &mut Self {
        self.script("init", script)
    }

    /// An executable script at `path` (without leading slash).
    pub fn script(&mut self, path: &str, script: &str) -> &mut Self {
        self.insert(path, Member::Text(script.into()))
    }

    /// A copy of this machine's file `from` at `path` (without leading slash).
    pub fn file(&mut self, path: &str, from: impl Into<PathBuf>) -> &mut Self {
        self.insert(path, Member::Copy(from.into()))
    }

    /// A program of this machine as `/bin/NAME`, and the shared libraries that ldd says it needs, each at its own path.
    ///
    /// # Errors
    /// No such program, or a library is missing on this machine.
    pub fn program(&mut self, program: &Path) -> Result<&mut Self> {
        let name = program.file_name().with_context(|| format!("{}: not a file", program.display()))?;
        if !program.is_file() {
            bail!("{}: no such program", program.display());
        }
        for library in shared_libraries(program)? {
            self.file(library.trim_start_matches('/'), &library);
        }
        Ok(self.file(&format!("bin/{}", name.to_string_lossy()), program))
    }

    /// Kernel modules with all that they need, and a `modules.dep`, so that `modprobe` finds them.
    ///
    /// # Errors
    /// The kernel has no such module.
    pub fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<&mut Self> {
        let files = kernel.module_files(names)?;
        let folder = format!("lib/modules/{}", kernel.version());
        for file in &files {
            self.file(&format!("{folder}/{file}"), kernel.module_dir().join(file));
        }
        let dep = kernel.modules_dep(&files);
        match self.members.get_mut(&format!("{folder}/modules.dep")) {
            Some(Member::Text(text)) => text.push_str(&dep),
            _ => _ = self.insert(&format!("{folder}/modules.dep"), Member::Text(dep)),
        }
        Ok(self)
    }

    /// Writes the archive, uncompressed: a hypervisor loads it faster than a guest decompresses it.
    ///
    /// # Errors
    /// A file to copy can't be read, or the archive can't be written.
    pub fn write(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("{}", to.display()))?;
        let mut archive = Writer::new(BufWriter::new(file));
        for (path, member) in &self.members {
            match member {
                Member::Directory => archive.append(path, 0o755, Kind::Directory),
                Member::Text(text) => archive.append(path, 0o755, Kind::File(text.as_bytes())),
                Member::Symlink(target) => archive.append(path, 0o777, Kind::Symlink(target)),
                Member::CharDevice(major, minor) => {
                    archive.append(path, 0o600, Kind::CharDevice(*major, *minor))
                }
                Member::Copy(from) => {
                    let data = fs::read(from).with_context(|| format!("{}", from.display()))?;
                    archive.append(path, 0o755, Kind::File(&data))
                }
            }
            .with_context(|| format!("writing {}", to.display()))?;
        }
        archive.finish()?.flush()?;
        Ok(())
    }

    /// Inserts a member and the directories above it.
    fn insert(&mut self, path: &str, member: Member) -> &mut Self {
        for (at, _) in path.match_indices('/') {
            self.members.entry(path[..at].to_owned()).or_insert(Member::Directory);
        }
        self.members.insert(path.to_owned(), member);
        self
    }
}

/// What ldd says a program needs, as absolute paths; none for a static program.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    let said = command(["ldd"]).arg(program).output().context("ldd")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    if let Some(missing) = said.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x..)" or "/lib64/ld-linux-x86-64.so.2 (0x..)".
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(said.lines().filter_map(path).collect())
}
