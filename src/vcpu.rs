//! One virtual CPU: runs the guest and carries its accesses to the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::Bus;
use crate::control::{Control, Ending};

/// Why CPUs came back to user space, counted.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    /// `in` and `rep ins`, one a KVM exit.
    pub io_in: AtomicU64,
    /// `out` and `rep outs`.
    pub io_out: AtomicU64,
    /// Reads of addresses that are neither RAM nor in the kernel.
    pub mmio_read: AtomicU64,
    /// Writes of such addresses.
    pub mmio_write: AtomicU64,
    /// Not exits: writes that KVM kept until the next exit.
    pub coalesced: AtomicU64,
    /// A signal, or the kernel had something else to do.
    pub interrupted: AtomicU64,
    /// Anything else.
    pub other: AtomicU64,
}

impl Exits {
    /// Name and count of each kind.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 7] {
        let Exits { io_in, io_out, mmio_read, mmio_write, coalesced, interrupted, other } = self;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("io_in", get(io_in)),
            ("io_out", get(io_out)),
            ("mmio_read", get(mmio_read)),
            ("mmio_write", get(mmio_write)),
            ("coalesced", get(coalesced)),
            ("interrupted", get(interrupted)),
            ("other", get(other)),
        ]
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One access as KVM describes it, taken out of `kvm_run` so that the CPU is not borrowed any longer.
enum Access {
    In { port: u16, data: *mut u8, bytes: usize },
    Out { port: u16, data: *const u8, bytes: usize },
    MmioRead { gpa: u64, data: *mut u8, bytes: usize },
    MmioWrite { gpa: u64, data: [u8; 8], bytes: usize },
    Done,
}

/// Runs `cpu` until the machine stops.
pub(crate) fn run(id: u8, mut cpu: VcpuFd, bus: &Bus, control: &Control, exits: &Arc<Exits>) {
    while !control.stopping() {
        let access = match cpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => Access::In { port, data: data.as_mut_ptr(), bytes: data.len() },
            Ok(VcpuExit::IoOut(port, data)) => Access::Out { port, data: data.as_ptr(), bytes: data.len() },
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                Access::MmioRead { gpa, data: data.as_mut_ptr(), bytes: data.len() }
            }
            Ok(VcpuExit::MmioWrite(gpa, written)) => {
                let mut data = [0; 8];
                let bytes = written.len().min(data.len());
                data[..bytes].copy_from_slice(&written[..bytes]);
                Access::MmioWrite { gpa, data, bytes }
            }
            Ok(VcpuExit::Intr) => {
                count(&exits.interrupted);
                Access::Done
            }
            // A triple fault is how some guests reset: the chipset answers with a reset too.
            Ok(VcpuExit::Shutdown) => {
                count(&exits.other);
                // Where it was is not to be had: KVM initializes the CPU after this on AMD's processors.
                tracing::info!(cpu = id, "a triple fault: the machine is reset");
                control.end(Ending::Reset);
                Access::Done
            }
            Ok(VcpuExit::InternalError) => {
                count(&exits.other);
                control.end(Ending::Failed(format!("CPU {id}: {}", internal_error(&mut cpu))));
                Access::Done
            }
            Ok(exit) => {
                count(&exits.other);
                control.end(Ending::Failed(format!("CPU {id}: KVM gave up: {exit:?}")));
                Access::Done
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                count(&exits.interrupted);
                Access::Done
            }
            Err(error) => {
                control.end(Ending::Failed(format!("CPU {id}: KVM_RUN failed: {error}")));
                Access::Done
            }
        };
        // Before this access, whatever it is: what was kept back came first.
        bus.in_order(|| take_coalesced(&mut cpu, id, bus, exits));
        match access {
            Access::In { port, data, bytes } => {
                count(&exits.io_in);
                let width = io_width(&mut cpu);
                // SAFETY: kvm-ioctls gave this slice of the `kvm_run` mapping for the exit that we are still in; `cpu` keeps it mapped, and
                // nothing else refers to it before the next `run`.
                #[allow(unsafe_code)]
                let data = unsafe { std::slice::from_raw_parts_mut(data, bytes) };
                bus.io_read(id, port, width, data);
            }
            Access::Out { port, data, bytes } => {
                count(&exits.io_out);
                let width = io_width(&mut cpu);
                // SAFETY: as above; the data is only read.
                #[allow(unsafe_code)]
                let data = unsafe { std::slice::from_raw_parts(data, bytes) };
                bus.io_write(id, port, width, data);
            }
            Access::MmioRead { gpa, data, bytes } => {
                count(&exits.mmio_read);
                // SAFETY: as above: a slice of `kvm_run`, for this exit.
                #[allow(unsafe_code)]
                let data = unsafe { std::slice::from_raw_parts_mut(data, bytes) };
                bus.mmio_read(id, gpa, data);
            }
            Access::MmioWrite { gpa, data, bytes } => {
                count(&exits.mmio_write);
                bus.mmio_write(id, gpa, &data[..bytes]);
            }
            Access::Done => {}
        }
    }
}

/// Carries out the writes that KVM kept back, oldest first. The ring is the machine's, whichever CPU reads it.
fn take_coalesced(cpu: &mut VcpuFd, id: u8, bus: &Bus, exits: &Exits) {
    // Without a ring there is nothing in it.
    while let Ok(Some(write)) = cpu.coalesced_mmio_read() {
        count(&exits.coalesced);
        // KVM keeps writes of 1 to 4 bytes.
        if let Some(data @ [_, ..]) = write.data.get(..write.len as usize) {
            bus.io_write(id, write.phys_addr as u16, data.len(), data);
        }
    }
}

/// What an internal error of KVM is about.
fn internal_error(cpu: &mut VcpuFd) -> String {
    // SAFETY: the last exit was KVM_EXIT_INTERNAL_ERROR, so `internal` is the union's live member.
    #[allow(unsafe_code)]
    let suberror = unsafe { cpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let at = match (cpu.get_sregs(), cpu.get_regs()) {
        (Ok(sregs), Ok(regs)) => format!(" at {:#x}", sregs.cs.base.wrapping_add(regs.rip)),
        _ => String::new(),
    };
    match suberror {
        KVM_INTERNAL_ERROR_EMULATION => format!(
            "KVM can't emulate what the guest executes{at}: an instruction that it doesn't know, or no memory there"
        ),
        other => format!("KVM gave up{at}: internal error {other}"),
    }
}

/// Bytes of one access of the port I/O exit that `cpu` is in: kvm-ioctls gives all of a string instruction's data as one slice.
fn io_width(cpu: &mut VcpuFd) -> usize {
    // SAFETY: the last exit was KVM_EXIT_IO, so `io` is the union's live member.
    #[allow(unsafe_code)]
    let width = unsafe { cpu.get_kvm_run().__bindgen_anon_1.io.size };
    usize::from(width)
}
