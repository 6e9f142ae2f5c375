//! The lab: an emulated machine with virtualization, and everything that boots a guest.
