//! The chipset and the small devices of a PC.
