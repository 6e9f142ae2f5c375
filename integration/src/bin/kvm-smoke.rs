//! Asks whether KVM works here: runs a guest that writes the argument's number of times to a port, and counts what arrives. The lab uses it to
//! test itself, and its counting of exits, before any real guest runs.

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let count = std::env::args().nth(1).context("how many writes?")?.parse()?;
    println!("{} writes arrived", kagero_integration::smoke::run(count)?);
    Ok(())
}
