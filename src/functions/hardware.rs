//! Functions that are hardware.

use std::os::fd::OwnedFd;

use kagero_devices::pci::Bar;
use kagero_vfio::{Decode, Error, Function, Region};

use super::{Sign, Slotted};

impl Slotted for Function {
    fn read_config(&mut self, offset: u16, out: &mut [u8]) {
        Function::read_config(self, offset, out);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) -> bool {
        Function::write_config(self, offset, data)
    }

    fn bar(&self, index: u8) -> Option<Bar> {
        Function::bar(self, index)
    }

    fn decodes(&self) -> Vec<Decode> {
        Function::decodes(self)
    }

    fn read(&mut self, region: Region, offset: u64, out: &mut [u8]) {
        Function::read(self, region, offset, out);
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        Function::write(self, region, offset, data);
    }

    fn pin(&self) -> Option<u8> {
        Function::pin(self)
    }

    fn route_line(&mut self, irq: Option<u8>) {
        Function::route_line(self, irq);
    }

    fn reset(&mut self) {
        // Who resets asks for all that is decoded anyway.
        let _moved = Function::reset(self);
    }

    fn take_error(&mut self) -> Option<Error> {
        Function::take_error(self)
    }

    fn signs(&self) -> Vec<(Sign, OwnedFd)> {
        let events = [(Sign::Failed, self.error_event()), (Sign::Wanted, self.request_event())];
        // Without a descriptor left, the sign is not heard: no reason to give the guest up.
        let own = |(sign, event): (_, Option<std::os::fd::BorrowedFd<'_>>)| {
            Some((sign, event?.try_clone_to_owned().ok()?))
        };
        events.into_iter().filter_map(own).collect()
    }

    fn name(&self) -> String {
        Function::name(self).to_owned()
    }
}
