//! Guests in assembly language, from `guests/`: each is a page long, does one thing with the machine and says on the serial port what came
//! of it. They run where operating systems don't yet, such as straight on a host's /dev/kvm that emulates kernel-mode instructions.
//!
//! The assembler and linker are those of the C compiler's binutils, which Rust itself links with.

use anyhow::{Context, Result, ensure};
use kagero_images::command::{command, run};
use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests");
/// What the boot sector of `boot.inc` loads, itself included.
const BOOT_BYTES: usize = 16 * 512;

/// Assembles `guests/NAME.S`, a guest that is its own firmware and is there in milliseconds: an image for `--firmware` in `folder`.
/// `symbols` are those that the source leaves open.
///
/// # Errors
/// The assembler or linker is missing or refuses the source.
pub fn firmware(name: &str, symbols: &[(&str, u32)], folder: &Path) -> Result<PathBuf> {
    let image = folder.join(name).with_extension("bin");
    // The image ends with the reset vector, 16 bytes below 1 MiB.
    let places = ["-Ttext=0xf0000", "--section-start=.reset=0xffff0", "-e", "0xffff0"];
    assemble(name, symbols, &BINARY, &places, &image)?;
    let size = fs::metadata(&image)?.len();
    ensure!(size == 0x1_0000, "{name}: {size} bytes are not a firmware of 64 KiB");
    Ok(image)
}

/// Assembles `guests/NAME.S`, a guest that the BIOS loads: the bytes with which its disk begins. `symbols` are as for [`firmware`].
///
/// # Errors
/// As [`firmware`].
pub fn boot_sectors(name: &str, symbols: &[(&str, u32)], folder: &Path) -> Result<Vec<u8>> {
    let image = folder.join(name).with_extension("bin");
    assemble(name, symbols, &BINARY, &["-Ttext=0x7c00", "-e", "0x7c00"], &image)?;
    let mut bytes = fs::read(&image)?;
    ensure!(bytes.len() <= BOOT_BYTES, "{name}: {} bytes don't fit into 16 sectors", bytes.len());
    bytes.resize(BOOT_BYTES, 0);
    Ok(bytes)
}

/// Assembles `guests/NAME.S`, a kernel that is booted directly: an ELF file with a PVH entry. `symbols` are as for [`firmware`].
///
/// # Errors
/// As [`firmware`].
pub fn kernel(name: &str, symbols: &[(&str, u32)], folder: &Path) -> Result<PathBuf> {
    let image = folder.join(name).with_extension("elf");
    // A kernel lies above 1 MiB, as does the reset vector that `firmware.inc` brings along.
    let places = ["-Ttext=0x110000", "--section-start=.reset=0x120000", "-e", "kernel"];
    assemble(name, symbols, &ELF, &places, &image)?;
    Ok(image)
}

/// Options of assembler and linker.
struct Format {
    assembler: &'static [&'static str],
    linker: &'static [&'static str],
}

const BINARY: Format = Format { assembler: &["--32"], linker: &["-m", "elf_i386", "--oformat", "binary"] };
const ELF: Format = Format {
    assembler: &["--64"],
    linker: &["-m", "elf_x86_64", "--build-id=none", "-z", "noexecstack", "-z", "max-page-size=4096"],
};

fn assemble(
    name: &str,
    symbols: &[(&str, u32)],
    format: &Format,
    places: &[&str],
    image: &Path,
) -> Result<()> {
    let source = Path::new(SOURCES).join(name).with_extension("S");
    let object = image.with_extension("o");
    let mut assembler = command(["as", "-I", SOURCES]);
    assembler.args(format.assembler);
    for (symbol, value) in symbols {
        assembler.arg("--defsym").arg(format!("{symbol}={value}"));
    }
    run(assembler.arg("-o").args([&object, &source])).with_context(|| name.to_owned())?;
    let mut linker = command(["ld"]);
    run(linker.args(format.linker).args(places).arg("-o").args([image, &object]))
        .with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_become_images() {
        let folder = tempfile::tempdir().unwrap();
        let image = fs::read(firmware("idle", &[], folder.path()).unwrap()).unwrap();
        assert_eq!((image.len(), image[0xfff0]), (0x1_0000, 0xea), "a far jump at the reset vector");
        let sectors = boot_sectors("disks", &[], folder.path()).unwrap();
        assert_eq!(sectors[510..512], [0x55, 0xaa]);
        let elf = fs::read(kernel("kernel", &[], folder.path()).unwrap()).unwrap();
        assert_eq!(elf[..5], *b"\x7fELF\x02");
        let error = firmware("chaos", &[], folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("chaos"), "its symbols are missing: {error:#}");
        assert!(firmware("no-such-guest", &[], folder.path()).is_err());
    }
}
