pub(crate) const MAGIC: &[u8] = b"KAGEROVL";
