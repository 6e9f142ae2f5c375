//! Memory slots: what the guest finds at its physical addresses without an exit.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kagero_vfio::Mapping;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use super::numbers::Numbers;
use crate::memory::{CHIPSET, GuestRam};

/// How many slots KVM has at least, when it doesn't tell.
const FEWEST: i32 = 32;

/// A machine's memory slots. They come and go while CPUs run, on whichever thread: KVM lets no CPU see a slot that is gone once it has said so.
pub(super) struct Slots {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

struct Table {
    numbers: Numbers,
    used: BTreeMap<u32, Used>,
}

/// A slot in use.
struct Used {
    gpa: u64,
    // The slot points into it: it stays as long.
    _memory: Arc<dyn Any + Send + Sync>,
}

impl Slots {
    /// No memory yet.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        let count = vm.check_extension_int(Cap::NrMemslots).max(FEWEST).unsigned_abs();
        let table = Table { numbers: Numbers::new(0..count), used: BTreeMap::new() };
        Slots { vm, table: Mutex::new(table) }
    }

    /// Maps all of `ram`, which stays.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(super) fn add_ram(&self, ram: &GuestRam) -> io::Result<()> {
        let owner: Arc<dyn Any + Send + Sync> = Arc::new(ram.clone());
        ram.slots().try_for_each(|(gpa, host, size)| {
            // SAFETY: `ram.slots()` are mappings that `owner` keeps.
            #[allow(unsafe_code)]
            let slot = unsafe { self.add(gpa, host, size, 0, &owner) };
            slot.map(drop)
        })
    }

    /// Maps `rom`'s regions read-only at their addresses; they stay.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(super) fn add_rom(&self, rom: GuestMemoryMmap) -> io::Result<()> {
        let owner: Arc<dyn Any + Send + Sync> = Arc::new(rom.clone());
        rom.iter().try_for_each(|region| {
            let host = region.get_host_address(MemoryRegionAddress(0)).map_err(io::Error::other)?;
            // SAFETY: the region is a part of `owner`.
            #[allow(unsafe_code)]
            let slot = unsafe {
                self.add(region.start_addr().0, host as u64, region.len(), KVM_MEM_READONLY, &owner)
            };
            slot.map(drop)
        })
    }

    /// Maps a function's registers at `gpa`, for as long as the slot is not [removed](Self::remove).
    ///
    /// # Errors
    /// When something is mapped there, or KVM has no more slots.
    pub(super) fn add_registers(&self, gpa: u64, registers: Arc<Mapping>) -> io::Result<u32> {
        let (host, size) = (registers.address(), registers.length());
        let end = gpa.checked_add(size).ok_or(io::ErrorKind::InvalidInput)?;
        if gpa < CHIPSET.end && end > CHIPSET.start {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let flags = if registers.is_read_only() { KVM_MEM_READONLY } else { 0 };
        let owner: Arc<dyn Any + Send + Sync> = registers;
        // SAFETY: `owner` is the mapping, whose address and length these are.
        #[allow(unsafe_code)]
        unsafe {
            self.add(gpa, host, size, flags, &owner)
        }
    }

    /// The guest finds nothing there any more. Slots that are not there are no mistake.
    pub(super) fn remove(&self, slot: u32) {
        let mut table = self.table();
        let Some(used) = table.used.get(&slot) else { return };
        // No bytes: that is how KVM is told.
        let nothing = kvm_userspace_memory_region { slot, guest_phys_addr: used.gpa, ..Default::default() };
        // SAFETY: this takes memory from the guest and gives it none.
        #[allow(unsafe_code)]
        let removed = unsafe { self.vm.set_user_memory_region(nothing) };
        match removed {
            Ok(()) => {
                table.used.remove(&slot);
                table.numbers.give_back(slot);
            }
            // The guest still reaches it: so it stays ours.
            Err(error) => tracing::error!("KVM keeps memory slot {slot}: {error}"),
        }
    }

    /// # Safety
    /// `host` must be the start of `size` bytes of memory that stay mapped as long as `owner` lives.
    #[allow(unsafe_code)]
    unsafe fn add(
        &self,
        gpa: u64,
        host: u64,
        size: u64,
        flags: u32,
        owner: &Arc<dyn Any + Send + Sync>,
    ) -> io::Result<u32> {
        let mut table = self.table();
        let slot = table.numbers.take().ok_or(io::ErrorKind::StorageFull)?;
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr: host,
        };
        // SAFETY: the caller says that this memory stays as long as `owner`. The table keeps that until KVM has let the slot go, and outlives
        // the CPUs, through which alone a guest reaches memory (see `Machine`).
        match unsafe { self.vm.set_user_memory_region(region) } {
            Ok(()) => {
                table.used.insert(slot, Used { gpa, _memory: Arc::clone(owner) });
                Ok(slot)
            }
            Err(error) => {
                table.numbers.give_back(slot);
                Err(error.into())
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
