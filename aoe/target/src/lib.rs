//! The AoE target for Linux: disk images, and the loop that serves them on any number of links.
//!
//! ```no_run
//! use kagero_target::{Access, Server, Stop};
//!
//! let server = Server::new();
//! server.export("7.1".parse()?, "debian.img".as_ref(), Access::ReadWrite)?;
//! let stop = Stop::new()?;
//! server.serve(&mut [kagero_link::open("eth1")?], &stop)?; // until another thread calls stop.stop()
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod batch;
mod engine;
mod error;
mod file;
mod format;
mod image;
mod info;
mod location;
mod lock;
mod nbd;
mod overlay;
mod place;
mod qcow2;
mod raw;
mod serve;
mod server;
mod settings;
mod shares;
mod stats;
mod stop;
mod thread;
mod upkeep;
mod vhdx;

pub use backend::Backend;
pub use error::Error;
pub use format::{Format, UnknownFormat, looks_raw};
pub use image::{Access, Image};
pub use info::{Below, Info, Why, info};
pub use location::Location;
pub use nbd::{BadUri, NbdRefusal, NbdUri};
pub use overlay::{
    Committed, Identity, Left, OldBase, Overlay, OverlayInfo, Overlays, Rebased, commit, rebase,
};
pub use place::Place;
pub use server::{Server, Status};
pub use settings::{ConfigString, StoredSettings};
pub use stats::Counters;
pub use stop::Stop;
pub use thread::Running;
