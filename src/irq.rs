//! Interrupt lines into KVM's interrupt controllers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_ioctls::VmFd;

/// The ISA interrupt lines, 0 to 15, as levels.
///
/// Devices give a level; a line is driven only when it changes. Each line has one driver, which holds its device's lock when
/// it calls [`set`](Self::set): so two levels of one line never overtake each other.
pub struct Lines {
    vm: Arc<VmFd>,
    levels: AtomicU32,
}

impl Lines {
    /// All lines low.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Lines { vm, levels: AtomicU32::new(0) }
    }

    /// Drives line `irq`.
    pub fn set(&self, irq: u8, level: bool) {
        let bit = 1 << irq;
        let before = if level {
            self.levels.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.levels.fetch_and(!bit, Ordering::Relaxed)
        };
        if (before & bit != 0) == level {
            return;
        }
        if let Err(error) = self.vm.set_irq_line(u32::from(irq), level) {
            tracing::error!("interrupt {irq}: KVM refuses the line: {error}");
        }
    }

    /// Raises and lowers line `irq`: one edge.
    pub fn pulse(&self, irq: u8) {
        self.set(irq, true);
        self.set(irq, false);
    }
}
