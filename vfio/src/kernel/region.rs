//! What the kernel tells about a region of a function, and about the IOMMU: structures that a chain of capabilities follows.

use std::ops::Range;

use vfio_bindings::bindings::vfio;

/// More capabilities than any structure has: a chain that is longer is a loop.
const CAPABILITIES: usize = 64;

/// A region of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RegionInfo {
    /// Bytes.
    pub(super) size: u64,
    /// Where it lies in the function's file.
    pub(super) offset: u64,
    /// What may be mapped of it, as the kernel says.
    pub(super) areas: Vec<Range<u64>>,
}

impl RegionInfo {
    /// From a `vfio_region_info`: size of the structure, flags, index, offset of the capabilities, then size and offset, 64 bits each.
    pub(super) fn parse(words: &[u32]) -> Self {
        let (size, offset) = (long(words, 4), long(words, 6));
        let flags = word(words, 1);
        let first = if flags & vfio::VFIO_REGION_INFO_FLAG_CAPS == 0 { 0 } else { word(words, 3) };
        let sparse = capabilities(words, first).find(|&(id, _)| id == vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP);
        let areas = match sparse {
            _ if flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 => Vec::new(),
            // After the header: how many, a reserved word, then offset and size of each.
            Some((_, body)) => pairs(body).map(|(at, bytes)| at..at.saturating_add(bytes)).collect(),
            // Without the list, all of it: the MSI-X table too where the kernel lets us (VFIO_REGION_INFO_CAP_MSIX_MAPPABLE). We don't: who
            // emulates the table leaves its pages out.
            None => std::iter::once(0..size).collect(),
        };
        RegionInfo { size, offset, areas }
    }
}

/// What a container's IOMMU can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// What can be translated, as (first, last); `None` when the kernel doesn't say.
    pub(super) ranges: Option<Vec<(u64, u64)>>,
    /// How mappings must be aligned, in bytes.
    pub(super) alignment: u64,
}

impl Translation {
    /// From a `vfio_iommu_type1_info`: size, flags, page sizes (64 bits), offset of the capabilities.
    pub(super) fn parse(words: &[u32]) -> Self {
        let flags = word(words, 1);
        let sizes = if flags & vfio::VFIO_IOMMU_INFO_PGSIZES == 0 { 0 } else { long(words, 2) };
        let first = if flags & vfio::VFIO_IOMMU_INFO_CAPS == 0 { 0 } else { word(words, 4) };
        let ranges = capabilities(words, first)
            .find(|&(id, _)| id == vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
            .map(|(_, body)| pairs(body).collect());
        let alignment = if sizes == 0 { 4096 } else { 1 << sizes.trailing_zeros() };
        Translation { ranges, alignment }
    }
}

fn word(words: &[u32], at: usize) -> u32 {
    words.get(at).copied().unwrap_or(0)
}

fn long(words: &[u32], at: usize) -> u64 {
    u64::from(word(words, at)) | u64::from(word(words, at + 1)) << 32
}

/// The capabilities from byte `first` on, as (identifier, words after the header).
fn capabilities(words: &[u32], first: u32) -> impl Iterator<Item = (u32, &[u32])> {
    let mut next = first as usize;
    let mut chain = std::iter::from_fn(move || {
        // A header is two words: identifier and version, 16 bits each, and the offset of the next one from the structure's start.
        let header =
            words.get(next / 4..).filter(|rest| next != 0 && next.is_multiple_of(4) && rest.len() >= 2)?;
        next = header[1] as usize;
        Some((header[0] & 0xffff, &header[2..]))
    });
    std::iter::from_fn(move || chain.next()).take(CAPABILITIES)
}

/// A list in a capability: how many, a reserved word, then pairs of 64 bits each.
fn pairs(body: &[u32]) -> impl Iterator<Item = (u64, u64)> {
    let count = word(body, 0) as usize;
    body.get(2..).unwrap_or(&[]).chunks_exact(4).take(count).map(|pair| (long(pair, 0), long(pair, 2)))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    const MMAP: u32 = vfio::VFIO_REGION_INFO_FLAG_MMAP;
    const CAPS: u32 = vfio::VFIO_REGION_INFO_FLAG_CAPS;

    #[test]
    fn a_region_may_be_mapped_whole_or_in_parts_or_not() {
        let whole = RegionInfo::parse(&[32, MMAP, 0, 0, 0x4000, 0, 0, 0x100]);
        assert_eq!(whole, RegionInfo { size: 0x4000, offset: 0x100 << 32, areas: vec![0..0x4000] });
        assert_eq!(RegionInfo::parse(&[32, 3, 0, 0, 0x4000, 0, 0, 0]).areas, []);
        // The MSI-X mappable capability, then the list.
        let mut words = vec![88, MMAP | CAPS, 0, 32, 0x4000, 0, 0, 0, 3 | 1 << 16, 40];
        words.extend([1 | 1 << 16, 0, 2, 0, 0, 0, 0x1000, 0, 0x3000, 0, 0x1000, 0]);
        assert_eq!(RegionInfo::parse(&words).areas, [0..0x1000, 0x3000..0x4000]);
    }

    #[test]
    fn chains_that_are_broken_end() {
        assert_eq!(RegionInfo::parse(&[32, MMAP | CAPS, 0, 32, 0x4000, 0, 0, 0]).areas, [0..0x4000]);
        assert_eq!(RegionInfo::parse(&[40, MMAP | CAPS, 0, 32, 0x4000, 0, 0, 0, 9, 32]).areas, [0..0x4000]);
        assert_eq!(RegionInfo::parse(&[48, MMAP | CAPS, 0, 32, 0x4000, 0, 0, 0, 1, 0, 500, 0]).areas, []);
        assert_eq!(RegionInfo::parse(&[]), RegionInfo::default());
    }

    #[test]
    fn the_iommu_says_what_it_translates() {
        let plain = Translation::parse(&[24, 1, 0xffff_f000, 0, 0, 0]);
        assert_eq!(plain, Translation { ranges: None, alignment: 4096 });
        let mut words = vec![72, 3, 0x4020_0000, 0, 24, 0, 1 | 1 << 16, 0, 2, 0];
        words.extend([0, 0, 0xfedf_ffff, 0, 0xfef0_0000, 0, u32::MAX, 0x7f]);
        let ranges = Some(vec![(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)]);
        assert_eq!(Translation::parse(&words), Translation { ranges, alignment: 2 << 20 });
    }
}
