//! A passed-through function's configuration space, as its guest sees it.

mod bars;
mod dumps;
mod guest;
mod lists;
