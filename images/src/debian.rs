//! The Debian guest.
