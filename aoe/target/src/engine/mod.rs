//! How requests that take longer are carried out: a kernel ring for what lies in a file, threads for everything else, and an order
//! between those that touch the same sectors.

mod flights;
mod lane;
mod reserve;
mod ring;
mod task;
#[cfg(test)]
mod tests;
mod workers;

pub(crate) use lane::{Finished, LONE, Lane, at_once};
pub(crate) use task::Task;
pub(crate) use workers::{Letter, Mailbox, Workers};
