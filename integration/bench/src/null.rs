//! A target that answers every read at once, with zeros: how fast the load generator and the network are without a server's work.

use anyhow::Result;
use clap::Args;
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Ata, Command, Config, Frame, Header, MacAddress, SECTOR, encode};
use kagero_link::{PacketLink, packet};
use std::time::Duration;

use crate::load;

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    interface: String,
}

/// Answers until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut link = PacketLink::open(&options.interface, packet::Options::default())?;
    let source = MacAddress(link.mac());
    loop {
        link.hold();
        // Not more than there are transmit buffers.
        let mut batch = 0;
        while batch < 64 {
            let mut request = None;
            if !link.receive(|frame| request = parse(frame)) {
                break;
            }
            batch += 1;
            if let Some((header, sectors)) = request {
                link.transmit(|out| answer(out, &header.answer(source, header.address), sectors));
            }
        }
        link.flush();
        if batch == 0 {
            load::wait(&link, Duration::from_secs(1))?;
        }
    }
}

fn parse(frame: &[u8]) -> Option<(Header, usize)> {
    let Frame { header, argument } = Frame::parse(frame).ok().filter(|frame| !frame.header.response)?;
    let sectors = Ata::parse(argument).map_or(0, |(ata, _)| usize::from(ata.count));
    Some((header, sectors))
}

fn answer(out: &mut [u8], header: &Header, sectors: usize) -> Option<usize> {
    encode(out, header, |out| match header.command {
        Command::Ata => {
            let registers = Ata { command: 0x40, ..Ata::default() }.encode(out)?;
            out.get_mut(registers..registers + sectors * SECTOR)?.fill(0);
            Some(registers + sectors * SECTOR)
        }
        Command::Config => Config::query().encode(out),
        _ => None,
    })
}
