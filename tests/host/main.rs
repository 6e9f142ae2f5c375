//! Kagero as its user sees it, on the host's own /dev/kvm: guests that are firmware or boot sectors, their console, exit codes and reports.
//!
//! Where there is no /dev/kvm, or one that can't run a guest, each of these tests says so on standard error and passes.

mod bios;
mod chaos;
mod console;
mod disk;
mod ending;
mod lab;
mod machine;
