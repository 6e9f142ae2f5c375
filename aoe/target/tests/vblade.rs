//! Our initiator with vblade as its target, over a cable: what the protocol lets clients do works with other servers too.
//!
//! vblade 25 does less than a disk: FLUSH CACHE EXT and TRIM are unknown to it, and FLUSH CACHE writes nothing. Some lists of stations end it;
//! our initiator sends none.

mod client;
#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use client::Client;
use kagero_aoe::wire::Address;
use kagero_devices::storage::{Operation, Outcome};
use kagero_link::{PacketLink, packet};
use namespace::{ip, with_cable};

const DISK: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 16_384;

/// A vblade that ends with this.
struct Vblade(Child);

impl Vblade {
    /// Serves the image on `kgv0`. `None`, and says so, where there is no vblade.
    fn start(image: &Path) -> Option<Self> {
        let mut command = Command::new("vblade");
        command.args(["7", "1", "kgv0"]).arg(image).stdin(Stdio::null()).stdout(Stdio::null());
        match command.spawn() {
            Ok(child) => Some(Vblade(child)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: there is no vblade; `cargo xtask setup` installs it");
                None
            }
            Err(error) => panic!("vblade: {error}"),
        }
    }

    fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Vblade {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that tell of their place, and of the round in which they were written.
fn pattern(lba: u64, sectors: u32, round: u64) -> Vec<u8> {
    (lba * 64..(lba + u64::from(sectors)) * 64)
        .flat_map(|word| (word ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
        .collect()
}

/// Gives `test` a client of a vblade with an empty disk, on a network with this MTU.
fn with_vblade(mtu: usize, test: impl FnOnce(&mut Client<PacketLink>, &Path) + Send) {
    with_cable(|| {
        for end in ["kgv0", "kgv1"] {
            ip(&format!("link set dev {end} mtu {mtu}"));
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        File::create(&image).unwrap().set_len(SECTORS * 512).unwrap();
        let Some(mut vblade) = Vblade::start(&image) else { return };
        let link = PacketLink::open("kgv1", packet::Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let (mut client, disk) = Client::attach(link, DISK);
        assert_eq!(disk.sectors, SECTORS);
        assert!(!disk.trim, "vblade has none");
        test(&mut client, &image);
        let statistics = client.initiator.statistics();
        assert_eq!(statistics.malformed, 0);
        assert!(vblade.is_running());
    });
}

/// Writes the whole disk in pieces of all sizes, many in flight; reads it back in others, and looks into the image.
fn everything_is_written_and_read(mtu: usize) {
    with_vblade(mtu, |client, image| {
        for round in 1..=2 {
            let sizes = [1, 2, 7, 16, 17, 18, 64, 128, 255, 256].into_iter().cycle();
            let (mut lba, mut waiting) = (0, Vec::new());
            for sectors in sizes {
                let sectors = sectors.min((SECTORS - lba) as u32);
                if sectors == 0 {
                    break;
                }
                let operation = Operation::Write { lba, sectors, durable: false };
                waiting.push(client.submit(operation, pattern(lba, sectors, round)));
                lba += u64::from(sectors);
                if waiting.len() == 8 {
                    waiting.drain(..).for_each(|tag| _ = client.finish(tag).unwrap());
                }
            }
            waiting.drain(..).for_each(|tag| _ = client.finish(tag).unwrap());
            let whole = pattern(0, SECTORS as u32, round);
            assert!(fs::read(image).unwrap() == whole, "all of it is in the image");
            for lba in (0..SECTORS).step_by(512) {
                assert!(client.read(lba, 512).unwrap() == whole[lba as usize * 512..][..512 * 512]);
            }
        }
        assert_eq!(client.initiator.statistics().refused, 0);
    });
}

#[test]
fn everything_is_written_and_read_over_a_small_mtu() {
    everything_is_written_and_read(1500);
}

#[test]
fn everything_is_written_and_read_with_jumbo_frames() {
    everything_is_written_and_read(9000);
}

/// A flush finds the form that vblade knows; a trim is an error that leaves the disk as it was.
#[test]
fn what_vblade_lacks_is_an_error_and_the_disk_goes_on() {
    with_vblade(1500, |client, image| {
        client.write(3, &pattern(3, 5, 1), true).unwrap();
        client.carry_out(Operation::Flush, vec![]).unwrap();
        client.carry_out(Operation::Verify { lba: 0, sectors: 8 }, vec![]).unwrap();
        let trim = client.carry_out(Operation::Trim { blocks: 1 }, vec![0; 512]);
        assert!(matches!(trim, Err(Outcome::Failed { error: 4, .. })), "{trim:?}");
        assert_eq!(client.read(3, 5).unwrap(), pattern(3, 5, 1));
        assert_eq!(fs::read(image).unwrap()[3 * 512..][..5 * 512], pattern(3, 5, 1));
        assert_eq!(client.initiator.statistics().refused, 0, "ABRT in ATA's registers, not AoE's flag");
    });
}
