//! What sectors hold: every write leaves its own mark, and a model knows which marks each sector may bear.

/// Bytes in a sector.
pub(crate) const SECTOR: usize = 512;

/// What the sectors hold at first.
const AT_FIRST: u32 = 1;

/// Sector `lba` of disk `disk` after write number `version`. Number 0 is a trim, which leaves zeros. Each word says what it is and where
/// in the sector, so that nothing can be torn, swapped or misplaced unseen.
fn sector(disk: u8, version: u32, lba: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if version != 0 {
        let mark = u64::from(version) << 32 | u64::from(disk) << 24 | lba;
        for (n, word) in (0..).zip(bytes.as_chunks_mut::<8>().0) {
            *word = (mark.rotate_left(n) ^ (u64::from(n) * 0x9e37_79b9)).to_le_bytes();
        }
    }
    bytes
}

/// A disk as its guest knows it.
pub(crate) struct Model {
    disk: u8,
    /// For each sector the writes that it may hold: one, or several after a reset or an error.
    possible: Vec<Vec<u32>>,
    version: u32,
}

impl Model {
    pub(crate) fn new(disk: u8, sectors: u64) -> Self {
        Model { disk, possible: vec![vec![AT_FIRST]; sectors as usize], version: AT_FIRST }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.possible.len() as u64
    }

    /// What the disk holds at first.
    pub(crate) fn at_first(&self) -> Vec<u8> {
        (0..self.sectors()).flat_map(|lba| sector(self.disk, AT_FIRST, lba)).collect()
    }

    /// A write's number and data.
    pub(crate) fn payload(&mut self, lba: u64, sectors: u32) -> (u32, Vec<u8>) {
        self.version += 1;
        let data = (lba..lba + u64::from(sectors)).flat_map(|lba| sector(self.disk, self.version, lba));
        (self.version, data.collect())
    }

    /// A write has ended well.
    pub(crate) fn written(&mut self, lba: u64, sectors: u32, version: u32) {
        for possible in &mut self.possible[lba as usize..][..sectors as usize] {
            possible.clear();
            possible.push(version);
        }
    }

    /// A write has not: each sector may be the old one or the new one.
    pub(crate) fn perhaps_written(&mut self, lba: u64, sectors: u32, version: u32) {
        for possible in &mut self.possible[lba as usize..][..sectors as usize] {
            possible.push(version);
        }
    }

    /// These sectors were read. What was found there will be found again.
    pub(crate) fn read(&mut self, lba: u64, data: &[u8]) {
        for (lba, bytes) in (lba..).zip(data.as_chunks().0) {
            let found = self.check(lba, bytes);
            let possible = &mut self.possible[lba as usize];
            possible.clear();
            possible.push(found);
        }
    }

    /// Whether there is only one thing that this sector may hold.
    pub(crate) fn is_certain(&self, lba: u64) -> bool {
        self.possible[lba as usize].len() == 1
    }

    /// Compares with the disk itself, when nothing is on its way any more.
    pub(crate) fn compare(&self, contents: &[u8]) {
        assert_eq!(contents.len() as u64, self.sectors() * SECTOR as u64);
        for (lba, bytes) in (0..).zip(contents.as_chunks().0) {
            self.check(lba, bytes);
        }
    }

    fn check(&self, lba: u64, bytes: &[u8; SECTOR]) -> u32 {
        let Model { disk, possible, .. } = self;
        let possible = &possible[lba as usize];
        let [.., a, b, c, d] = *bytes.first_chunk::<8>().expect("a sector");
        let found = u32::from_le_bytes([a, b, c, d]);
        assert!(
            *bytes == sector(*disk, found, lba),
            "disk {disk}, sector {lba} is torn or misplaced: {bytes:x?}"
        );
        assert!(
            possible.contains(&found),
            "disk {disk}, sector {lba} holds {found}, not one of {possible:?}"
        );
        found
    }
}
