//! Numbers and names in structures, and their checksum.

use crc::{CRC_32_ISCSI, Crc};

/// 1 MiB, which regions and blocks are aligned to ([MS-VHDX] 2.1).
pub(super) const MIB: u64 = 1 << 20;

/// A GUID in binary form.
pub(super) type Guid = [u8; 16];

/// The GUID that is written aaaaaaaa-bbbb-cccc-dddd-dddddddddddd.
pub(super) const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// So many bytes of a structure; zeros after its end.
pub(super) fn array<const N: usize>(structure: &[u8], at: usize) -> [u8; N] {
    let rest = structure.get(at..).unwrap_or_default();
    if let Some(array) = rest.first_chunk() {
        return *array;
    }
    let mut array = [0; N];
    array.iter_mut().zip(rest).for_each(|(byte, &value)| *byte = value);
    array
}

/// A number in a structure.
pub(super) fn u16_at(structure: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(structure, at))
}

/// A number in a structure.
pub(super) fn u32_at(structure: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(structure, at))
}

/// A number in a structure.
pub(super) fn u64_at(structure: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(structure, at))
}

/// Whether the checksum in bytes 4 to 7 of a structure is that of all of it, with these bytes taken as zeros.
pub(super) fn checksum_matches<'a>(mut parts: impl Iterator<Item = &'a [u8]>) -> bool {
    const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    let Some((begin, rest)) = parts.next().and_then(|first| first.split_at_checked(8)) else { return false };
    let mut digest = CRC_32C.digest();
    digest.update(&begin[..4]);
    digest.update(&[0; 4]);
    digest.update(rest);
    parts.for_each(|part| digest.update(part));
    digest.finalize() == u32_at(begin, 4)
}
