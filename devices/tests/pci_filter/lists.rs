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

#[test]
fn what_is_hidden_reads_as_zero_and_is_not_written() {
    let dump = dumps::nvme();
    let mut guest = Guest::new(&dump);
    for (offset, length) in [(0x104, 4), (0x148, 0x40), (0x200, 0x20), (0x240, 8)] {
        assert_eq!(guest.bytes(offset, length), vec![0; length], "at {offset:#x}");
        assert_eq!(guest.write(offset, &vec![0xff; length]).forwards, []);
    }
    assert_eq!(guest.hardware, dump.config);
    // In front of it and behind there is a register.
    assert_eq!(guest.write(0x188, &[1; 4]).forwards.len(), 1);
    assert_eq!(guest.write(0x108, &[1; 4]).forwards.len(), 1);
}

#[test]
fn reserved_bits_of_links_are_ignored() {
    let guest = Guest::new(&dumps::ahci().at(0x34, &[0x83]).at(0x81, &[0xa9]));
    assert_eq!(guest.capabilities(), [(0x80, 5), (0xa8, 0x12)]);
    assert_eq!(guest.byte(0x34), 0x80);
}

#[test]
fn a_list_that_makes_no_sense_is_cut() {
    let listed = |dump| Guest::new(&dump).capabilities();
    let ahci = dumps::ahci;
    assert_eq!(listed(ahci().at(6, &[0])), [], "there is none");
    assert_eq!(listed(ahci().at(0x34, &[0x3c])), [], "in the header");
    assert_eq!(listed(ahci().at(0xa9, &[0x80])), [(0x80, 5), (0xa8, 0x12)], "back to the start");
    assert_eq!(listed(ahci().at(0xa9, &[0xa8])), [(0x80, 5), (0xa8, 0x12)], "to itself");
    assert_eq!(listed(ahci().at(0xa9, &[0x10])), [(0x80, 5), (0xa8, 0x12)], "into a BAR");
    let all: Vec<u8> = (0..192u8).map(|at| if at % 4 == 1 { at.wrapping_add(0x43) } else { 9 }).collect();
    assert_eq!(listed(ahci().at(0x34, &[0x40]).at(0x40, &all)).len(), 48, "as long as can be");
    // MSI with 64-bit address takes 14 bytes.
    assert_eq!(listed(ahci().at(0x81, &[0x8c]).at(0x8c, &[9, 0xa8])), [(0x8c, 9), (0xa8, 0x12)]);
    let mut guest = Guest::new(&ahci().at(0xa9, &[0x24]));
    assert_eq!(guest.size(0x24), 0xffff_f000, "a link to a BAR does the BAR no harm");

    let listed = |dump| Guest::new(&dump).extended();
    let e1000e = dumps::e1000e;
    assert_eq!(listed(e1000e().extended(0x100, !0, 0xf, 0xfff)), [], "nothing answers");
    assert_eq!(listed(e1000e().extended(0x140, 3, 1, 0x100)), [(0x100, 1), (0x140, 3)]);
    assert_eq!(listed(e1000e().extended(0x140, 3, 1, 0x0fc)), [(0x100, 1), (0x140, 3)]);
    assert_eq!(listed(e1000e().extended(0x140, 3, 1, 0xffc)), [(0x100, 1), (0x140, 3)], "a header of zeros");
    let mut long = e1000e();
    for offset in (0x100..0x1000).step_by(4) {
        long = long.extended(offset, 0xb, 1, (offset + 4) as u32 & 0xfff);
    }
    assert_eq!(listed(long).len(), 256);
    let alone = dumps::nvme().extended(0x100, 0x10, 1, 0);
    assert_eq!(listed(alone), [], "hidden, and nothing else is there");
}

#[test]
fn of_a_kind_that_is_ours_there_is_one() {
    let twice = dumps::msi(0xc0, 0, 5, dumps::ahci().at(0xa9, &[0xc0]));
    let guest = Guest::new(&twice);
    assert_eq!(guest.capabilities(), [(0x80, 5), (0xa8, 0x12)]);
    assert_eq!(guest.bytes(0xc0, 4), [0; 4]);
    assert_eq!(guest.filter.msi().map(|msi| msi.offset), Some(0x80));
}
