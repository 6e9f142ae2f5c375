//! What CPUID tells the guest: the host's CPU as KVM offers it, with this machine's topology.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// The table for CPU `id` of `count`, from what KVM supports: one socket, one thread a core.
pub(crate) fn for_cpu(supported: &CpuId, id: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        describe(entry, u32::from(id), u32::from(count));
    }
    cpuid
}

/// Bits of a guest physical address, which the table for a CPU tells the guest too.
pub(crate) fn address_bits(supported: &CpuId) -> u8 {
    /// What a CPU with PAE has when it doesn't say (Intel SDM volume 3, 4.1.4).
    const FEWEST: u8 = 36;
    let sizes = supported.as_slice().iter().find(|entry| entry.function == 0x8000_0008);
    let [physical, _linear, guest, _] = sizes.map_or([0; 4], |sizes| sizes.eax.to_le_bytes());
    // Fewer, where the host's nested page tables reach less far (AMD APM volume 3, Fn8000_0008: GuestPhysAddrSize).
    let bits = if guest == 0 { physical } else { physical.min(guest) };
    bits.clamp(FEWEST, 52)
}

fn set(register: &mut u32, mask: u32, value: u32) {
    *register = (*register & !mask) | (value & mask);
}

/// Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
fn describe(entry: &mut kvm_cpuid_entry2, id: u32, count: u32) {
    // Bits of an APIC id that count cores.
    let width = u32::BITS - (count - 1).leading_zeros();
    match (entry.function, entry.index) {
        (1, _) => {
            set(&mut entry.ebx, 0xffff_0000, id << 24 | count << 16);
            // HTT: the count above is meant.
            set(&mut entry.edx, 1 << 28, u32::from(count > 1) << 28);
            // We are a hypervisor; and VMX is not offered: one guest, no machines inside it.
            set(&mut entry.ecx, 1 << 31 | 1 << 5, 1 << 31);
        }
        (4, _) => {
            // Cores in the package, and for the last level cache (3) that all of them share it.
            set(&mut entry.eax, 0xfc00_0000, (count - 1) << 26);
            let sharing = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            set(&mut entry.eax, 0x03ff_c000, sharing << 14);
        }
        (0xb | 0x1f, 0) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 1, 1 << 8, id);
        }
        (0xb | 0x1f, 1) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (width, count, 2 << 8 | 1, id);
        }
        (0xb | 0x1f, _) => entry.edx = id,
        // SVM, for the same reason as VMX.
        (0x8000_0001, _) => set(&mut entry.ecx, 1 << 2, 0),
        (0x8000_0008, _) => set(&mut entry.ecx, 0xf0ff, width << 12 | (count - 1)),
        (0x8000_001e, _) => {
            (entry.eax, entry.ebx, entry.ecx) = (id, id, 0);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(function: u32, index: u32, id: u32, count: u32) -> kvm_cpuid_entry2 {
        let mut entry = kvm_cpuid_entry2 { function, index, ..Default::default() };
        describe(&mut entry, id, count);
        entry
    }

    #[test]
    fn topology_names_this_cpu_and_all() {
        let one = described(1, 0, 3, 5);
        assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff, one.edx >> 28 & 1), (3, 5, 1));
        let cores = described(0xb, 1, 3, 5);
        assert_eq!((cores.eax, cores.ebx, cores.edx), (3, 5, 3));
        assert_eq!(described(0x8000_0008, 0, 0, 5).ecx, 3 << 12 | 4);
    }

    #[test]
    fn addresses_are_as_long_as_cpu_and_nested_page_tables_have_them() {
        let bits = |eax| {
            let sizes = kvm_cpuid_entry2 { function: 0x8000_0008, eax, ..Default::default() };
            address_bits(&CpuId::from_entries(&[sizes]).unwrap())
        };
        assert_eq!([bits(0x3028), bits(0x30_3934), bits(0x3030)], [40, 48, 48]);
        assert_eq!(address_bits(&CpuId::new(0).unwrap()), 36);
    }

    #[test]
    fn one_cpu_has_no_siblings() {
        assert_eq!(described(1, 0, 0, 1).edx, 0);
        assert_eq!(described(0xb, 1, 0, 1).eax, 0);
    }
}
