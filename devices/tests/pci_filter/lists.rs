//! The lists of capabilities.

use crate::dumps;
use crate::guest::Guest;

#[test]
fn what_can_be_given_is_listed() {
    let [e1000e, nvme, xhci, ahci, hda] = dumps::all().map(|dump| Guest::new(&dump));
    assert_eq!(e1000e.capabilities(), [(0xc8, 1), (0xd0, 5), (0xe0, 0x10), (0xa0, 0x11)]);
    assert_eq!(e1000e.extended(), [(0x100, 1), (0x140, 3)]);
    assert_eq!(nvme.capabilities(), [(0x80, 0x10), (0x60, 1), (0x40, 0x11)]);
    assert_eq!(nvme.extended(), [(0x100, 0), (0x1b8, 1), (0x220, 3)], "not ARI, SR-IOV, resizable BARs, ATS");
    assert_eq!(xhci.capabilities(), [(0x90, 0x11), (0xa0, 0x10)]);
    assert_eq!(xhci.extended(), []);
    assert_eq!(ahci.capabilities(), [(0x80, 5), (0xa8, 0x12)]);
    assert_eq!(ahci.dword(0x100), !0, "conventional PCI ends there");
    assert_eq!(hda.capabilities(), [(0x50, 1), (0x60, 5), (0x70, 0x10)]);
    assert_eq!(hda.extended(), [(0x100, 2)]);
}
