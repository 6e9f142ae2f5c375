//! What the guest's machine does for a passed-through function.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use kagero_devices::pci::Message;

use crate::Mapping;

/// Memory in the guest's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// A way for an event to become an interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route(pub u32);

/// The guest's machine. With KVM: memory slots, interrupt routes, and events that KVM itself waits for.
pub trait Machine: Send + Sync {
    /// The guest finds this memory at `gpa` from now on, without an exit; but writes to it are exits when it is
    /// [read-only](Mapping::is_read_only). The machine keeps it until it is unmapped.
    ///
    /// # Errors
    /// `AlreadyExists`, `AddrInUse` or `InvalidInput` when it can't be there: something else is, or there are no such addresses. Guests do this in
    /// passing, and nobody is told. Others when the machine has no more slots.
    fn map(&self, gpa: u64, memory: Arc<Mapping>) -> io::Result<Slot>;

    /// The guest finds nothing there any more.
    fn unmap(&self, slot: Slot);

    /// Whenever `event` rings, the guest gets this message.
    ///
    /// # Errors
    /// When the machine has no more routes.
    fn connect(&self, event: BorrowedFd<'_>, message: Message) -> io::Result<Route>;

    /// From now on it gets that one.
    ///
    /// # Errors
    /// When the machine refuses the message.
    fn redirect(&self, route: Route, message: Message) -> io::Result<()>;

    /// And now none. The event must be the one that was connected.
    fn disconnect(&self, route: Route, event: BorrowedFd<'_>);

    /// Whenever `trigger` rings, interrupt line `irq` rises; when the guest has served it, it falls and `resample` rings. Others may drive the same line.
    ///
    /// # Errors
    /// When the machine refuses.
    fn connect_line(&self, irq: u8, trigger: BorrowedFd<'_>, resample: BorrowedFd<'_>) -> io::Result<()>;

    /// The end of that.
    fn disconnect_line(&self, irq: u8, trigger: BorrowedFd<'_>);
}
