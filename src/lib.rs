//! Kagero: boots an unmodified operating system on a machine whose disk is elsewhere.
//!
//! This crate is the KVM-hosted virtual machine monitor and its command line. What the guest sees is in `kagero_devices`, how a disk's
//! commands reach its target in `kagero_aoe`: both know nothing of KVM, threads or files.

mod attach;
pub mod board;
pub mod boot;
pub mod bus;
mod chipset;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confine;
pub mod console;
pub mod control;
mod cpuid;
pub mod discover;
pub mod error;
mod events;
pub mod functions;
pub mod image;
pub mod irq;
pub mod kvm;
pub mod limit;
pub mod log;
mod machine;
pub mod memory;
pub mod passthrough;
pub mod progress;
pub mod report;
pub mod run;
pub mod serve;
pub mod session;
pub mod signals;
pub mod stop;
pub mod storage;
pub mod target;
pub mod trace;
mod vcpu;
