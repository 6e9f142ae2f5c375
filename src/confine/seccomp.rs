//! A filter for system calls (seccomp(2)): whoever takes over a server that serves gets nothing that serving doesn't need.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::ValueEnum;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};

use super::calls::{CALLS, UNKNOWN, When};
use crate::error::Error;

/// What becomes of system calls that are not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// They end the process, with SIGSYS.
    #[default]
    On,
    /// They are carried out, and the kernel's log has them.
    Log,
    /// There is no filter.
    Off,
}

/// Filters the system calls of all threads from now on. It can't be taken back.
///
/// # Errors
/// When the kernel refuses.
pub fn filter(mode: Seccomp) -> Result<(), Error> {
    let otherwise = match mode {
        Seccomp::Off => return Ok(()),
        Seccomp::On => SeccompAction::KillProcess,
        Seccomp::Log => SeccompAction::Log,
    };
    for program in programs(otherwise).context("the filter for system calls")? {
        seccompiler::apply_filter_all_threads(&program)
            .context("can't filter system calls; --seccomp off serves without")?;
    }
    Ok(())
}

/// The tables as the kernel takes them: of what two filters say, it does the stricter.
fn programs(otherwise: SeccompAction) -> anyhow::Result<[BpfProgram; 2]> {
    // A filter knows two actions, so that a third needs a second filter.
    let unknown: BTreeMap<i64, Vec<SeccompRule>> = UNKNOWN.iter().map(|&call| (call, Vec::new())).collect();
    let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
    let mut allowed = unknown.clone();
    for &(_, when, calls) in CALLS {
        for &call in calls {
            allowed.entry(call).or_default().extend(rules(when)?);
        }
    }
    Ok([
        program(unknown, SeccompAction::Allow, no_such_call)?,
        program(allowed, otherwise, SeccompAction::Allow)?,
    ])
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> anyhow::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, action, arch)?.try_into()?)
}

/// The conditions of which one has to hold; none stands for always.
fn rules(when: When) -> anyhow::Result<Vec<SeccompRule>> {
    let rule = |argument, is, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, Length::Dword, is, value)?])
    };
    Ok(match when {
        When::Always => Vec::new(),
        When::OneOf(argument, values) => {
            values.iter().map(|&value| rule(argument, Is::Eq, value)).collect::<Result<_, _>>()?
        }
        When::With(argument, bits) => vec![rule(argument, Is::MaskedEq(bits), bits)?],
        When::Without(argument, bits) => vec![rule(argument, Is::MaskedEq(bits), 0)?],
        When::Ourselves(argument) => vec![rule(argument, Is::Eq, std::process::id().into())?],
    })
}
