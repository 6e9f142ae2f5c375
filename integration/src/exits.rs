//! Counts a guest's exits in L1, exactly: KVM's trace points with `hist:` triggers, which count in the kernel and lose
//! nothing (Documentation/trace/histogram.rst).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let l1 = kagero_integration::l1::L1::builder().start()?;
//! use kagero_integration::exits::Counter;
//! let counter = Counter::start(&l1)?;
//! let before = counter.read()?;
//! // ... let the guest do one thing ...
//! let exits = counter.read()?.since(&before);
//! println!("{} exits to user space, {} to port 1F7h", exits.userspace_total(), exits.port(0x1f7));
//! # Ok(())
//! # }
//! ```

use crate::l1::L1;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::Duration;

const EVENTS: &str = "/sys/kernel/tracing/events/kvm";
const PATIENCE: Duration = Duration::from_secs(20);

/// The trace points and what they are counted by.
const HISTOGRAMS: [(&str, &str); 4] = [
    ("kvm_exit", "exit_reason"),
    ("kvm_userspace_exit", "reason"),
    ("kvm_pio", "port,rw"),
    ("kvm_mmio", "gpa,type"),
];

/// KVM_EXIT_IO, as in `linux/kvm.h`.
pub const IO: u64 = 2;
/// KVM_EXIT_MMIO.
pub const MMIO: u64 = 6;

/// Counts while it lives; of all guests in the L1.
#[derive(Debug)]
pub struct Counter<'a> {
    l1: &'a L1,
}

/// How often what happened. See [`Exits::since`] for what happened between two readings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// Exits from the guest to KVM, by the processor's reason (AMD64 manual volume 2, appendix C).
    pub processor: BTreeMap<u64, u64>,
    /// Exits from KVM to user space, by `KVM_EXIT_*`.
    pub userspace: BTreeMap<u64, u64>,
    /// Port accesses that KVM saw, by port and whether they were writes. Those that KVM handles itself (its interrupt
    /// controllers, ioeventfd) are among them.
    pub ports: BTreeMap<(u64, bool), u64>,
    /// MMIO reads and writes that KVM saw, by guest-physical address and whether they were writes.
    pub mmio: BTreeMap<(u64, bool), u64>,
}

impl<'a> Counter<'a> {
    /// Starts counting, from zero.
    ///
    /// # Errors
    /// L1's kernel lacks the trace points, or L1 died.
    pub fn start(l1: &'a L1) -> Result<Counter<'a>> {
        let counter = Counter { l1 };
        counter.triggers("")?;
        Ok(counter)
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// L1 died, or the kernel writes histograms in a way we don't know.
    pub fn read(&self) -> Result<Exits> {
        let read: String = HISTOGRAMS
            .iter()
            .map(|(event, _)| format!("echo @{event}; cat {EVENTS}/{event}/hist; "))
            .collect();
        let text = self.l1.run(&read, PATIENCE)?.expect_success().context("reading histograms")?;
        parse(&text)
    }

    /// Sets the triggers, or with "!" removes them.
    fn triggers(&self, prefix: &str) -> Result<()> {
        let set =
            |(event, key): &(&str, &str)| format!("echo '{prefix}hist:keys={key}' >{EVENTS}/{event}/trigger");
        let script = HISTOGRAMS.iter().map(set).collect::<Vec<_>>().join(" && ");
        self.l1.run(&script, PATIENCE)?.expect_success().map(drop).context("setting KVM's trace triggers")
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        let _ = self.triggers("!");
    }
}

impl Exits {
    /// What was added since an `earlier` reading; counts of zero are left out.
    pub fn since(&self, earlier: &Exits) -> Exits {
        Exits {
            processor: difference(&self.processor, &earlier.processor),
            userspace: difference(&self.userspace, &earlier.userspace),
            ports: difference(&self.ports, &earlier.ports),
            mmio: difference(&self.mmio, &earlier.mmio),
        }
    }

    /// All exits to user space.
    pub fn userspace_total(&self) -> u64 {
        self.userspace.values().sum()
    }

    /// Reads and writes of one port.
    pub fn port(&self, port: u16) -> u64 {
        [false, true].iter().filter_map(|write| self.ports.get(&(port.into(), *write))).sum()
    }
}

fn difference<K: Ord + Copy>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let added =
        |(key, count): (&K, &u64)| (*key, count.saturating_sub(earlier.get(key).copied().unwrap_or(0)));
    now.iter().map(added).filter(|(_, count)| *count > 0).collect()
}

/// Reads histograms, each after a line of `@` and its event's name.
fn parse(text: &str) -> Result<Exits> {
    let mut exits = Exits::default();
    let mut event = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('@') {
            event = name;
        } else if line.starts_with("{ ") {
            let (keys, hits) =
                parse_line(line).with_context(|| format!("{event}: not a histogram line: {line}"))?;
            match (event, &keys[..]) {
                ("kvm_exit", [reason]) => _ = exits.processor.insert(*reason, hits),
                ("kvm_userspace_exit", [reason]) => _ = exits.userspace.insert(*reason, hits),
                ("kvm_pio", [port, rw]) => _ = exits.ports.insert((*port, *rw == 1), hits),
                // Types 0, 1 and 2 are a read that isn't answered yet, a read and a write: a read to user space is seen
                // twice, and its second time counts.
                ("kvm_mmio", [_, 0]) => {}
                ("kvm_mmio", [gpa, kind]) => _ = exits.mmio.insert((*gpa, *kind == 2), hits),
                _ => anyhow::bail!("{event}: unexpected keys: {line}"),
            }
        }
    }
    Ok(exits)
}

/// `{ port:        503, rw:          0 } hitcount:         12`
fn parse_line(line: &str) -> Option<(Vec<u64>, u64)> {
    let (keys, hits) = line.strip_prefix("{ ")?.split_once("} hitcount:")?;
    let value = |key: &str| key.split_once(':')?.1.trim().parse().ok();
    Some((keys.split(',').map(value).collect::<Option<_>>()?, hits.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "@kvm_exit
# event histogram
#
# trigger info: hist:keys=exit_reason:vals=hitcount:sort=hitcount:size=2048 [active]
#

{ exit_reason:         96 } hitcount:          2
{ exit_reason:        123 } hitcount:         40

Totals:
    Hits: 42
    Entries: 2
    Dropped: 0
@kvm_userspace_exit
{ reason:          2 } hitcount:         38
@kvm_pio
{ port:        503, rw:          0 } hitcount:          4
{ port:        503, rw:          1 } hitcount:          1
@kvm_mmio
{ gpa: 4273995776, type:          0 } hitcount:          3
{ gpa: 4273995776, type:          1 } hitcount:          3
{ gpa: 4273995776, type:          2 } hitcount:          9
";

    #[test]
    fn histograms_are_understood() {
        let exits = parse(TEXT).unwrap();
        assert_eq!(exits.processor, [(96, 2), (123, 40)].into());
        assert_eq!(exits.userspace, [(IO, 38)].into());
        assert_eq!(exits.port(0x1f7), 5);
        assert_eq!(exits.mmio, [((0xfec0_0000, false), 3), ((0xfec0_0000, true), 9)].into());
        assert!(parse("@kvm_pio\n{ port: 1 } hitcount: 3\n").is_err());
        assert!(parse("@kvm_pio\n{ port: x, rw: 1 } hitcount: 3\n").is_err());
    }

    #[test]
    fn a_difference_holds_only_what_was_added() {
        let before = parse(TEXT).unwrap();
        let mut after = before.clone();
        after.ports.insert((0x1f7, false), 6);
        after.userspace.insert(MMIO, 1);
        let added = after.since(&before);
        assert_eq!(added.ports, [((0x1f7, false), 2)].into());
        assert_eq!(added.userspace, [(MMIO, 1)].into());
        assert_eq!(added.processor, BTreeMap::new());
        assert_eq!(added.userspace_total(), 1);
    }
}
