//! The project's own commands: set-up, demo, test, images.
fn main() {}
