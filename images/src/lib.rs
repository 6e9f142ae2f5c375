//! Makes guest images, and the small systems that start them, from Debian's packages.
//!
//! - [`debian`]: a whole Debian on a disk image, with its own boot loader.
//! - [`tiny`]: a kernel's initramfs that runs one script, for tests of seconds.
//! - [`kernel`], [`initramfs`], [`cpio`], [`disk`]: what these are made of; the lab uses them too.
//! - [`apt`]: what this machine's apt says about where Debian's packages come from.
//! - [`command`]: running the tools of others with errors that people can use.
//!
//! Nothing here needs loop devices or mounts; only mmdebstrap needs root.

pub mod apt;
pub mod command;
pub mod cpio;
pub mod debian;
pub mod disk;
pub mod initramfs;
pub mod kernel;
pub mod tiny;

use std::path::PathBuf;

/// Where fetched kernels, built images and the logs of lab runs go: `lab/` below cargo's target directory.
pub fn cache_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().unwrap_or(root);
    root.join(target.unwrap_or_else(|| "target".into())).join("lab")
}
