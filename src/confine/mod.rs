//! What a server gives up once everything is open: other users' rights, capabilities, system calls. docs/security.md has the why.
//!
//! The order: open interfaces and images; [`give_up_rights`]; start threads; [`filter`]; serve.

mod calls;
mod rights;
mod seccomp;
mod user;

pub use rights::{give_up_rights, may_make_files};
pub use seccomp::{Seccomp, filter};
pub use user::User;
