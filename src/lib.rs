//! Kagero.
