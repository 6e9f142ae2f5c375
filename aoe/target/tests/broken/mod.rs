//! A link that makes the thread panic that serves it, with the first frame.

use std::os::fd::{AsFd, BorrowedFd};

use kagero_aoe::link::Link;
use kagero_link::{MemoryLink, ServerLink};

pub(crate) struct Broken(pub(crate) MemoryLink);

impl ServerLink for Broken {}

impl Link for Broken {
    fn receive(&mut self, _: impl FnOnce(&[u8])) -> bool {
        panic!("on purpose")
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.0.transmit(fill)
    }

    fn mtu(&self) -> usize {
        self.0.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }
}

impl AsFd for Broken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
