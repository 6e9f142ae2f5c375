//! A passed-through function's configuration space, as its guest sees it.

mod bars;
mod dumps;
mod guest;
mod header;
mod lists;
mod messages;
mod power_and_reset;
mod random;
