//! IDENTIFY DEVICE data of a hostile target.

use kagero_devices::ata::identify::{self, Identity, Position};
use kagero_devices::ata::{Geometry, Settings};

/// `data` is what the target sent, with its checksum mended for one half of all inputs.
pub fn identify(data: &[u8]) {
    let mut sector = [0; 512];
    for (to, from) in sector.iter_mut().zip(data) {
        *to = *from;
    }
    if data.len() % 2 == 1 {
        seal(&mut sector);
    }
    let Ok(Identity { disk, firmware, .. }) = identify::parse(&sector) else { return };
    assert!((1..=1 << 48).contains(&disk.sectors), "{} sectors", disk.sectors);
    for (text, longest) in [(&disk.serial, 20), (&disk.model, 40), (&firmware, 8)] {
        assert!(text.len() <= longest && text.trim() == text, "{text:?}");
        assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text:?}");
    }
    let geometry = Geometry::of(disk.sectors);
    for lba in [0, disk.sectors - 1, 1 << 27] {
        let (cylinder, head, sector) = geometry.chs(lba);
        let whole = lba < 65_536 * 16 * 63;
        assert!(!whole || geometry.lba(cylinder, head, sector) == Some(lba), "{lba}");
    }

    // What we tell our guest of that disk is the same disk. A 48-bit LBA can't name the last sector of 2^48.
    let told = identify::build(&disk, &Settings::power_on(disk.sectors), Position::Device0);
    let parsed = identify::parse(&told).expect("our own data describes a disk");
    assert_eq!(parsed.disk, disk);
}

/// Makes word 255 valid.
fn seal(sector: &mut [u8; 512]) {
    sector[510] = 0xa5;
    sector[511] = sector[..511].iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}
