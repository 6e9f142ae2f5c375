//! Users and capabilities (capabilities(7), credentials(7)).

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::unistd::{geteuid, setgroups, setresgid, setresuid};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::User;
use crate::error::{Error, UserError};

/// What root keeps when no other user was named: the way to other people's files, as anyone who starts it as root expects.
const ROOT_KEEPS: Capability = Capability::CAP_DAC_OVERRIDE;

/// Becomes `user`, if one is given, and gives up all capabilities, those that programs started later could get included. Nobody but root
/// can look into the process from here on.
///
/// A packet socket needs CAP_NET_RAW only when it is made (packet(7)), so that nothing of it is kept: frames flow, and a socket may even be
/// bound anew. Root without a `user` keeps CAP_DAC_OVERRIDE.
///
/// # Errors
/// When other threads run (Linux has capabilities for each thread), or the kernel refuses.
pub fn give_up_rights(user: Option<&User>) -> Result<(), Error> {
    let threads = fs::read_dir("/proc/self/task").context("/proc/self/task: can't count threads")?.count();
    ensure_alone(threads)?;
    // Takes CAP_SETPCAP, so it comes first. Who hasn't that couldn't use the set either: no_new_privs is in its way.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        caps::clear(None, CapSet::Bounding).context("can't clear the bounding set of capabilities")?;
    }
    if let Some(user) = user.filter(|user| user.uid != geteuid()) {
        let become_it = || {
            setgroups(&[])?;
            setresgid(user.gid, user.gid, user.gid)?;
            setresuid(user.uid, user.uid, user.uid)
        };
        become_it().with_context(|| format!("can't become user {}", user.name))?;
    }
    keep_only(if geteuid().is_root() { Some(ROOT_KEEPS) } else { None })
        .context("can't give up capabilities")?;
    prctl::set_no_new_privs().context("can't forbid new privileges")?;
    // Memory holds clients' data: no core dumps, and no debugger of the same user's. After the change of user, which sets it anew.
    prctl::set_dumpable(false).context("can't forbid core dumps")?;
    Ok(())
}

fn ensure_alone(threads: usize) -> anyhow::Result<()> {
    ensure!(threads == 1, "rights are to be given up before threads start, and there are {threads}");
    Ok(())
}

fn keep_only(capability: Option<Capability>) -> Result<(), caps::errors::CapsError> {
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: HashSet<Capability> =
        capability.into_iter().filter(|capability| had.contains(capability)).collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // In this order: what is effective has to be permitted.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Whether we, as we are now, can make files in `folder` and sync it.
///
/// # Errors
/// One line that names the folder, the user and the mend.
pub fn may_make_files(folder: &Path, user: Option<&User>) -> Result<(), UserError> {
    let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, folder, rights, AtFlags::EACCESS).map_err(|error| {
        let error = std::io::Error::from(error);
        let (who, mend) = match user {
            Some(User { name, .. }) => (
                format!("user {name}"),
                format!("`chown {name} {}`, with every folder above open to {name}", folder.display()),
            ),
            None => ("we".to_owned(), "change its mode or owner".to_owned()),
        };
        UserError::new(folder.display(), format!("{who} can't make files there: {error}"), mend)
    })
}
