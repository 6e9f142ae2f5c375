//! The MSI-X table: who sends what, and who waits.

use kagero_devices::pci::{Message, MsiXTable, VectorChange};
use kagero_devices::register::Fault;
use proptest::prelude::*;

const MASK: u32 = 1;

fn dword(table: &MsiXTable, offset: u64) -> u32 {
    let mut data = [0; 4];
    assert_eq!(table.read(offset, &mut data), Ok(()));
    u32::from_le_bytes(data)
}

fn write(table: &mut MsiXTable, offset: u64, value: u32) -> Option<VectorChange> {
    table.write(offset, &value.to_le_bytes()).expect("an access that exists")
}

/// As a driver does: address and data while masked, then the mask bit.
fn program(table: &mut MsiXTable, vector: u16, data: u32) -> Message {
    let at = 16 * u64::from(vector);
    for (register, value) in [(12, MASK), (0, 0xfee0_1000), (4, 0), (8, data)] {
        assert_eq!(write(table, at + register, value).and_then(|change| change.to), None);
    }
    let message = Message { address: 0xfee0_1000, data };
    assert_eq!(
        write(table, at + 12, 0),
        Some(VectorChange { vector, from: None, to: Some(message) }),
        "nothing changes before it is unmasked"
    );
    message
}

#[test]
fn all_are_masked_at_first_and_after_a_reset() {
    let mut table = MsiXTable::new(3);
    let check = |table: &MsiXTable| {
        for vector in 0..3 {
            let entry: [u32; 4] = std::array::from_fn(|i| dword(table, 16 * vector + 4 * i as u64));
            assert_eq!(entry, [0, 0, 0, MASK]);
            assert_eq!(table.message(vector as u16), None);
        }
        let mut pending = [0xff; 8];
        assert_eq!(table.read_pending(0, &mut pending), Ok(()));
        assert_eq!(pending, [0; 8]);
    };
    check(&table);
    program(&mut table, 1, 0x41);
    table.pend(2);
    let _ = table.mask_function(true);
    table.reset();
    check(&table);
    let message = program(&mut table, 1, 0x42);
    assert_eq!(table.message(1), Some(message), "the function's mask is gone too");
}

#[test]
fn a_vector_that_is_in_use_can_be_moved() {
    let mut table = MsiXTable::new(2);
    let from = Some(program(&mut table, 1, 0x41));
    // Address and upper address in one write.
    let change = table.write(16, &0x1_fee0_2003u64.to_le_bytes()).unwrap();
    let to = Some(Message { address: 0x1_fee0_2000, data: 0x41 });
    assert_eq!(change, Some(VectorChange { vector: 1, from, to }));
    // Data and mask in one.
    let change = table.write(24, &(0xffff_ffff_0000_0042u64).to_le_bytes()).unwrap();
    assert_eq!(change, Some(VectorChange { vector: 1, from: to, to: None }));
    assert_eq!(dword(&table, 28), MASK, "the rest is reserved");
    let mut entry = [0; 8];
    assert_eq!(table.read(24, &mut entry), Ok(()));
    assert_eq!(entry, [0x42, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(table.message(0), None);
}

#[test]
fn who_is_masked_waits() {
    let mut table = MsiXTable::new(70);
    let message = program(&mut table, 65, 0x41);
    program(&mut table, 3, 0x43);
    assert!(write(&mut table, 16 * 3 + 12, MASK).is_some());
    assert_eq!(table.mask_function(true), [VectorChange { vector: 65, from: Some(message), to: None }]);
    assert_eq!(table.mask_function(true), []);
    assert_eq!(table.message(65), None);
    table.pend(65);
    table.pend(3);
    table.pend(70);
    let mut pending = [0; 4];
    assert_eq!(table.read_pending(8, &mut pending), Ok(()));
    assert_eq!(pending, [2, 0, 0, 0]);
    assert_eq!(table.read_pending(0, &mut pending), Ok(()));
    assert_eq!(pending, [8, 0, 0, 0]);
    assert_eq!(table.mask_function(false), [VectorChange { vector: 65, from: None, to: Some(message) }]);
    assert!(table.take_pending(65) && !table.take_pending(65) && !table.take_pending(0));
    assert!(!table.take_pending(70), "there is none");
    assert!(table.take_pending(3));
}

#[test]
fn names_bad_accesses() {
    let mut table = MsiXTable::new(1);
    let mut data = [0; 16];
    for (offset, width, fault) in [
        (0, 1, Fault::Width),
        (0, 2, Fault::Width),
        (0, 16, Fault::Width),
        (0, 0, Fault::Width),
        (2, 4, Fault::Unaligned),
        (4, 8, Fault::Unaligned),
        (16, 4, Fault::NoRegister),
        (u64::MAX - 7, 8, Fault::NoRegister),
    ] {
        assert_eq!(table.read(offset, &mut data[..width]), Err(fault));
        assert_eq!(table.write(offset, &data[..width]), Err(fault));
        assert_eq!(table.read_pending(offset, &mut data[..width]), Err(fault));
    }
    assert_eq!(table.read_pending(8, &mut data[..4]), Err(Fault::NoRegister));
    assert_eq!((MsiXTable::new(0).vectors(), MsiXTable::new(u16::MAX).vectors()), (1, 2048));
}

proptest! {
    /// Who follows the changes knows what each vector sends.
    #[test]
    fn random_accesses(
        vectors in 1u16..130,
        acts in prop::collection::vec((0u64..2100, any::<[u8; 8]>(), 0usize..10, 0u8..12), 0..200),
    ) {
        let mut table = MsiXTable::new(vectors);
        let mut followed = vec![None; vectors.into()];
        for (offset, data, width, act) in acts {
            let offset = if act % 2 == 0 { offset & !7 } else { offset };
            let width = if width > 8 { 4 } else { width };
            let changes = match act {
                0 => table.mask_function(data[0] & 1 != 0),
                1 => {
                    table.pend(offset as u16);
                    Vec::new()
                }
                _ => {
                    let change = table.write(offset, &data[..width]);
                    let exists = offset < u64::from(vectors) * 16 && matches!(width, 4 | 8) && offset % width as u64 == 0;
                    prop_assert_eq!(change.is_ok(), exists);
                    change.ok().flatten().into_iter().collect()
                }
            };
            for VectorChange { vector, from, to } in changes {
                prop_assert!(from != to);
                prop_assert_eq!(std::mem::replace(&mut followed[usize::from(vector)], to), from);
            }
            for (vector, message) in (0..).zip(&followed) {
                prop_assert_eq!(table.message(vector), *message);
            }
        }
    }
}
