//! Whether KVM works here, asked without Kagero.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A port that no device of a PC has.
const PORT: u16 = 0x2ff0;
const CODE: u64 = 0x1000;
const MEMORY: usize = 0x4000;

/// Runs a guest of a few bytes that writes `count` times to a port; gives how many writes arrived.
///
/// # Errors
/// KVM is not there or can't run the guest.
pub fn run(count: u16) -> Result<u32> {
    ensure!(count > 0, "at least one write");
    let vm = Kvm::new().context("/dev/kvm")?.create_vm()?;
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])?;
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
        ..Default::default()
    };
    // SAFETY: the mapping is `memory`, which lives longer than the guest that runs below, and has that size.
    unsafe { vm.set_user_memory_region(region) }?;

    // mov dx,PORT; mov cx,count; again: out dx,al; loop again; hlt
    let [p0, p1] = PORT.to_le_bytes();
    let [c0, c1] = count.to_le_bytes();
    memory.write_slice(&[0xba, p0, p1, 0xb9, c0, c1, 0xee, 0xe2, 0xfd, 0xf4], GuestAddress(CODE))?;
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rflags) = (CODE, 2);
    vcpu.set_regs(&regs)?;

    let mut arrived = 0u32;
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(PORT, _) => arrived += 1,
            VcpuExit::Hlt => break,
            other => bail!("unexpected exit {other:?}"),
        }
    }
    Ok(arrived)
}
