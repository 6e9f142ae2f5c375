//! Frames through packet sockets and AF_XDP, over a veth pair.

use anyhow::{Result, anyhow};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::sys::{PacketSocket, Receiver, Sender};
use super::xdp::Xdp;
use super::{Measure, Options, Rate, Row, Stopwatch, rounds};

/// Frames in one call, where a call takes several.
pub(super) const BATCH: usize = 32;

/// The shortest, and what the sixteen sectors and more of a jumbo frame come to.
const LENGTHS: [usize; 2] = [60, 8740];

/// Measures between kgl0 and kgl1.
pub(super) fn measure(options: &Options) -> Vec<Row> {
    let mut measures: Vec<(String, Measure<'_>)> = Vec::new();
    for length in LENGTHS {
        for (name, kind) in [("send", Sender::Single), ("sendmmsg", Sender::Batch), ("TX ring", Sender::Ring)]
        {
            measures
                .push((format!("{name}, {length} bytes"), Box::new(move |time| send(kind, length, time))));
        }
        let xdp = move |time| {
            let mut xdp = Xdp::open("kgl0")?;
            pump(|| xdp.send(length), time)
        };
        measures.push((format!("AF_XDP send, copy mode, {length} bytes"), Box::new(xdp)));
    }
    for length in LENGTHS {
        let kinds = [
            ("recv", Receiver::Single),
            ("recvmmsg", Receiver::Batch),
            ("RX ring, TPACKET_V2", Receiver::RingV2),
            ("RX ring, TPACKET_V2, never sleeping", Receiver::BusyRingV2),
            ("RX ring, TPACKET_V3", Receiver::RingV3),
        ];
        for (name, kind) in kinds {
            let measure = move |time| {
                let mut socket = PacketSocket::receiver("kgl1", kind)?;
                receive(|| socket.receive(), length, time)
            };
            measures.push((format!("{name}, {length} bytes"), Box::new(measure)));
        }
        for (name, busy) in [("copy mode", false), ("copy mode, never sleeping", true)] {
            let xdp = move |time| {
                let mut xdp = Xdp::open("kgl1")?;
                xdp.redirect()?;
                receive(|| xdp.receive(busy), length, time)
            };
            measures.push((format!("AF_XDP receive, {name}, {length} bytes"), Box::new(xdp)));
        }
    }
    rounds(measures, options)
}

/// Sends to an interface where nobody listens.
fn send(kind: Sender, length: usize, time: Duration) -> Result<Rate> {
    let mut socket = PacketSocket::sender("kgl0", kind, length)?;
    pump(|| socket.send(), time)
}

fn pump(mut some: impl FnMut() -> Result<usize>, time: Duration) -> Result<Rate> {
    let (watch, mut count) = (Stopwatch::start(), 0);
    while watch.runs(time) {
        count += some()? as u64;
    }
    Ok(watch.rate(count))
}

/// Receives while another thread sends as fast as it can.
fn receive(mut some: impl FnMut() -> Result<usize>, length: usize, time: Duration) -> Result<Rate> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let mut socket = PacketSocket::sender("kgl0", Sender::Batch, length)?;
            while !stop.load(Ordering::Relaxed) {
                socket.send()?;
            }
            Ok(())
        });
        let rate = pump(&mut some, time);
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        rate
    })
}
