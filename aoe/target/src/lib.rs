//! The AoE target for Linux: disk images in plain files, and the loop that serves them on any number of links.
//!
//! ```no_run
//! use kagero_target::{Access, Server, Stop};
//!
//! let mut server = Server::new();
//! server.export("7.1".parse()?, "debian.img".as_ref(), Access::ReadWrite)?;
//! let stop = Stop::new()?;
//! server.serve(&mut [kagero_link::open("eth1")?], &stop)?; // until another thread calls stop.stop()
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod image;
mod lock;
mod serve;
mod stats;
mod stop;
mod thread;

pub use error::Error;
pub use image::{Access, Image};
pub use serve::Server;
pub use stats::{Counters, Stats};
pub use stop::Stop;
pub use thread::Running;
