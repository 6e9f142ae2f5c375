//! Which functions go, and where the guest finds them.

use std::collections::BTreeSet;

use super::reason::Reason;
use super::{Address, Choice, Function};
use crate::error::UserError;
use crate::functions::SLOTS;

/// A function that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The function on the host.
    pub host: Address,
    /// Its IOMMU group.
    pub group: u32,
    /// Its slot on the guest's bus 0.
    pub slot: u8,
    /// Its number there; every slot has a function 0.
    pub function: u8,
    /// Whether its slot has others too.
    pub multifunction: bool,
}

/// What goes, what stays, and what has to be done for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the guest's order.
    pub functions: Vec<Planned>,
    /// Those whose driver has to become vfio-pci, by address: those that go, and others of their groups.
    pub bind: Vec<Address>,
    /// Those of `bind` that the guest does not get.
    pub along: Vec<(Address, u32)>,
    /// When all were asked for: those that stay, and why.
    pub stay: Vec<(Address, Reason)>,
}

impl Plan {
    /// Makes the plan for what was chosen. With `bind`, drivers may be changed.
    ///
    /// # Errors
    /// When a function that was named can't go, or when all were asked for and none can.
    pub fn new(here: &[Function], choices: &[Choice], bind: bool) -> Result<Plan, UserError> {
        let all = choices.contains(&Choice::All);
        let (mut going, mut stay) =
            if all { all_that_can(here, bind) } else { (named(here, choices, bind)?, Vec::new()) };
        let functions = match places(&going) {
            Ok(functions) => functions,
            Err(left) if all => {
                going.retain(|function| !left.contains(&function.address));
                stay.extend(left.into_iter().map(|address| (address, Reason::NoSlot)));
                stay.sort_by_key(|(address, _)| *address);
                places(&going).unwrap_or_default()
            }
            Err(left) => return Err(Reason::NoSlot.refuse(left[0])),
        };
        if functions.is_empty() {
            let without = stay
                .iter()
                .any(|(_, reason)| matches!(reason, Reason::Driver(_) | Reason::Shares { bind: false, .. }));
            let mend = if without { "add --bind" } else { "`kagero devices` says why" };
            return Err(UserError::new("--passthrough", "nothing of this host can go to the guest", mend));
        }
        let groups: BTreeSet<_> = functions.iter().map(|planned| planned.group).collect();
        let of_groups = here.iter().filter(|one| one.group.is_some_and(|group| groups.contains(&group)));
        let goes = |one: &Function| functions.iter().any(|planned| planned.host == one.address);
        let changed = of_groups.filter(|one| if goes(one) { !one.is_ready() } else { !one.is_harmless() });
        let changed: Vec<_> = changed.collect();
        let along = changed.iter().filter(|one| !goes(one));
        let along = along.filter_map(|one| Some((one.address, one.group?))).collect();
        let bind = changed.iter().map(|one| one.address).collect();
        Ok(Plan { functions, bind, along, stay })
    }
}

/// Why a function stays when all are asked for, and drivers may be changed.
pub(super) fn would_stay(one: &Function, here: &[Function]) -> Option<Reason> {
    stays(one, &free(here, true), here, true)
}

/// Those that could go if there were no groups.
fn free(here: &[Function], bind: bool) -> Vec<&Function> {
    here.iter().filter(|one| Reason::of(one).is_none() && (bind || one.is_ready())).collect()
}

/// Parts all functions into those that go and those that stay.
fn all_that_can(here: &[Function], bind: bool) -> (Vec<&Function>, Vec<(Address, Reason)>) {
    let free = free(here, bind);
    let (mut going, mut stay) = (Vec::new(), Vec::new());
    for one in here {
        match stays(one, &free, here, bind) {
            Some(reason) => stay.push((one.address, reason)),
            None => going.push(one),
        }
    }
    (going, stay)
}

/// The functions that were named, if every one of them can go.
fn named<'a>(here: &'a [Function], choices: &[Choice], bind: bool) -> Result<Vec<&'a Function>, UserError> {
    let mut going = Vec::new();
    for choice in choices {
        let Choice::Function(address) = choice else { continue };
        going.push(here.iter().find(|one| one.address == *address).ok_or_else(|| {
            UserError::new(
                address,
                "this host has no such PCI function",
                "`kagero devices` lists what is here",
            )
        })?);
    }
    going.sort_by_key(|one| one.address);
    for one in &going {
        if let Some(reason) = stays(one, &going, here, bind) {
            return Err(reason.refuse(one.address));
        }
    }
    Ok(going)
}

/// Why a function stays while these go: first what --bind doesn't help against.
fn stays(one: &Function, going: &[&Function], here: &[Function], bind: bool) -> Option<Reason> {
    let alone = Reason::of(one);
    // Where the group is in the way as well, its other names are worth more.
    let group_first = matches!(alone, None | Some(Reason::Virtio));
    let group = if group_first { shares(one, going, here, true) } else { None };
    group
        .or(alone)
        .or_else(|| (!bind && !one.is_ready()).then(|| Reason::Driver(one.driver.clone())))
        .or_else(|| shares(one, going, here, bind))
}

/// Whether others of its group that don't go keep it here too: those that the kernel doesn't let be beside a guest's, and that
/// can't be taken along either.
fn shares(one: &Function, going: &[&Function], here: &[Function], bind: bool) -> Option<Reason> {
    let group = one.group?;
    let goes = |other: &Function| going.iter().any(|going| going.address == other.address);
    let others = here.iter().filter(|other| other.group == Some(group) && other.address != one.address);
    let others = others.filter(|other| !goes(other) && !other.is_harmless());
    let why = |other: &Function| {
        let driver = || other.driver.as_ref().map(|driver| format!("driver {driver}"));
        let in_use = || other.carries.iter().find(|carried| carried.in_use()).map(ToString::to_string);
        let reason = Reason::of(other).map(|reason| reason.to_string());
        reason.or_else(in_use).or_else(|| if bind { None } else { driver() })
    };
    let others: Vec<_> = others.filter_map(|other| Some((other.address, why(other)?))).collect();
    (!others.is_empty()).then_some(Reason::Shares { group, others, bind })
}

/// Gives each slot of the host a slot of the guest. Numbers stay, but there must be a function 0, or no guest looks for more: the first one
/// of a slot takes that number. Fails with those for which there is no room.
fn places(going: &[&Function]) -> Result<Vec<Planned>, Vec<Address>> {
    let mut slots: Vec<Vec<&Function>> = Vec::new();
    for one in going {
        match slots.last_mut() {
            Some(last) if last[0].address.slot() == one.address.slot() => last.push(one),
            _ => slots.push(vec![one]),
        }
    }
    let left: Vec<_> = slots.iter().skip(SLOTS.count()).flatten().map(|one| one.address).collect();
    if !left.is_empty() {
        return Err(left);
    }
    let slots = SLOTS.zip(&slots);
    let functions = slots.flat_map(|(slot, together)| {
        together.iter().enumerate().filter_map(move |(at, one)| {
            Some(Planned {
                host: one.address,
                group: one.group?,
                slot,
                function: if at == 0 { 0 } else { one.address.function },
                multifunction: together.len() > 1,
            })
        })
    });
    Ok(functions.collect())
}
