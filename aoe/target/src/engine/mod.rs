//! How requests that take longer are carried out: a kernel ring for what lies in a file, threads for everything else, and an order
//! between those that touch the same sectors.

mod buffer;
mod flights;
mod lane;
mod ring;
mod task;
#[cfg(test)]
mod tests;
mod workers;

pub(crate) use buffer::Buffer;
pub(crate) use lane::{Finished, LONE, Lane, at_once};
pub(crate) use task::Task;
pub(crate) use workers::{Letter, Mailbox, Workers};
