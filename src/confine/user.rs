//! Who a server becomes.

use nix::unistd::{Gid, Uid, geteuid};

use crate::error::UserError;

/// A user of this machine, with the group that is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What they are called.
    pub name: String,
    /// User number.
    pub uid: Uid,
    /// Group number.
    pub gid: Gid,
}

impl User {
    /// The user that a process can become: `kagero`, or by number `999`.
    ///
    /// # Errors
    /// There is no such user, or only root could become it.
    pub fn named(name: &str) -> Result<Self, UserError> {
        let wrong = |problem: String, mend: &str| Err(UserError::new("--user", problem, mend));
        let found = match name.parse() {
            Ok(number) => nix::unistd::User::from_uid(Uid::from_raw(number)),
            Err(_) => nix::unistd::User::from_name(name),
        };
        let user = match found {
            Ok(Some(user)) => User { name: user.name, uid: user.uid, gid: user.gid },
            Ok(None) => {
                let mend = "`useradd --system NAME` makes one; `getent passwd` lists them";
                return wrong(format!("there is no user \"{name}\""), mend);
            }
            Err(error) => return wrong(format!("can't look up \"{name}\": {error}"), "give a number"),
        };
        if user.uid.is_root() {
            return wrong(format!("{} gives nothing up", user.name), "name another user, or leave it out");
        }
        if !geteuid().is_root() && geteuid() != user.uid {
            return wrong(format!("only root can become {}", user.name), "start as root, or leave it out");
        }
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let error = |name: &str| User::named(name).unwrap_err().to_string();
        let mend = "`useradd --system NAME` makes one; `getent passwd` lists them";
        assert_eq!(error("no-one-here"), format!("--user: there is no user \"no-one-here\": {mend}"));
        assert_eq!(error("4294967294"), format!("--user: there is no user \"4294967294\": {mend}"));
        let root = "--user: root gives nothing up: name another user, or leave it out";
        assert_eq!((error("root"), error("0")), (root.into(), root.into()));
        match User::named("nobody") {
            Ok(nobody) => assert_eq!(User::named(&nobody.uid.to_string()), Ok(nobody)),
            Err(error) => assert!(!geteuid().is_root(), "{error}"),
        }
    }
}
