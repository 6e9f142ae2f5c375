//! Why a link could not be opened, in one line that says what to do.

use std::io;
use std::path::PathBuf;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface has this name.
    #[error("no interface {name}: there {}", existing(.others))]
    NoInterface {
        /// The name that was asked for.
        name: String,
        /// Interfaces that exist.
        others: Vec<String>,
    },
    /// The interface exists but is administratively down.
    #[error("interface {0} is down: bring it up with `ip link set dev {0} up`")]
    Down(String),
    /// The interface does not carry Ethernet frames.
    #[error("interface {0} does not carry Ethernet frames: choose an Ethernet interface")]
    NotEthernet(String),
    /// A frame of two sectors does not fit.
    #[error("interface {name} has an MTU of {mtu}, AoE needs {least}: set it with `ip link set dev {name} mtu 1500`", least = crate::interface::LEAST_MTU)]
    SmallMtu {
        /// The interface.
        name: String,
        /// Its MTU in bytes.
        mtu: usize,
    },
    /// The process may not open packet sockets or taps.
    #[error("no permission to use interface {name}: run as root, or with the capability {capability}")]
    Permission {
        /// The interface.
        name: String,
        /// What is missing.
        capability: &'static str,
    },
    /// Another process holds the tap.
    #[error("tap {0} is in use by another process: choose another name or end that process")]
    TapInUse(String),
    /// Any other refusal by the kernel.
    #[error("interface {name}: cannot {doing}: {source}")]
    Kernel {
        /// The interface.
        name: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The capture file can't be made.
    #[error("cannot create capture file {path}: {source}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn existing(others: &[String]) -> String {
    match others {
        [] => "are none".into(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}
