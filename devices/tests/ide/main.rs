//! The IDE controller through its registers, with disks in memory behind it.

mod commands;
mod dma;
mod machine;
mod pci;
mod pio;
mod random;
mod registers;
mod reset;
