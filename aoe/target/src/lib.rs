//! The AoE target's storage engine and serving loop.
