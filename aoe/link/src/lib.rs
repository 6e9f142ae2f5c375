//! Links that carry Ethernet frames: packet ring, tap, in memory.
