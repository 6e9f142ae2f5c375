//! The initiator against a small target, over a simulated network on a virtual clock.

#![allow(unreachable_pub)]

mod attach;
mod fuzz;
mod loss;
mod model;
mod order;
mod random;
mod transfer;
mod world;
