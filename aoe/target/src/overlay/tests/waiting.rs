//! Who waits for a flush: nobody but other flushes.

use std::fs;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kagero_aoe::target::{Fault, Range};

use super::super::layout::CLUSTER;
use super::super::{Identity, Opening, Overlay};
use crate::{Access, Backend, Image};

/// A test that fails shall end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says when a flush has begun, and ends it when told.
#[derive(Debug)]
struct Slow {
    below: Box<dyn Backend>,
    begun: SyncSender<()>,
    end: Mutex<Receiver<()>>,
}

impl Backend for Slow {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.below.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        self.below.write(offset, data, durable)
    }

    fn flush(&self) -> Result<(), Fault> {
        // Unless the test is over.
        if self.begun.send(()).is_ok() {
            let _ = self.end.lock().unwrap().recv_timeout(PATIENCE);
        }
        self.below.flush()
    }

    fn trim(&self, range: Range) -> Result<(), Fault> {
        self.below.trim(range)
    }
}

#[test]
fn a_flush_makes_nobody_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (base, path) = (folder.path().join("base.img"), folder.path().join("one.overlay"));
    fs::write(&base, vec![1; 8 * CLUSTER as usize]).unwrap();
    let base = Arc::new(Image::open(&base, Access::ReadOnly).unwrap());
    let identity = Identity::of(&base).unwrap();
    drop(Overlay::create(&path, Arc::clone(&base), &identity).unwrap());
    let (begun, has_begun) = sync_channel(8);
    let (let_end, end) = sync_channel(0);
    let slow =
        |raw| -> Box<dyn Backend> { Box::new(Slow { below: Box::new(raw), begun, end: Mutex::new(end) }) };
    let overlay = Opening::new(&path).unwrap().over_with(base, slow).unwrap();
    overlay.write(0, &[2; 512], false).unwrap();

    let sector = |offset: u64| {
        let mut out = [0; 512];
        overlay.read(offset, &mut out).unwrap();
        out[0]
    };
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| overlay.flush());
        // Two waits for the disk: the data's, and the map's.
        for copied in [2, 3] {
            has_begun.recv_timeout(PATIENCE).unwrap();
            assert_eq!((sector(0), sector(512)), (2, 1));
            overlay.write(512, &[3; 512], false).unwrap();
            overlay.write(0, &[2; 512], false).unwrap();
            overlay.write(copied * CLUSTER, &[4; 512], false).unwrap();
            overlay.trim(Range { offset: (copied + 3) * CLUSTER, length: CLUSTER }).unwrap();
            assert_eq!((sector(512), sector(copied * CLUSTER), sector((copied + 3) * CLUSTER)), (3, 4, 0));
            overlay.write(512, &[1; 512], false).unwrap();
            let_end.send(()).unwrap();
        }
        flush.join().unwrap().unwrap();
        // What was copied meanwhile is left to the next flush.
        let flush = scope.spawn(|| overlay.flush());
        for _ in 0..2 {
            has_begun.recv_timeout(PATIENCE).unwrap();
            let_end.send(()).unwrap();
        }
        flush.join().unwrap().unwrap();
        // And then there is but data.
        let flush = scope.spawn(|| overlay.flush());
        has_begun.recv_timeout(PATIENCE).unwrap();
        let_end.send(()).unwrap();
        flush.join().unwrap().unwrap();
    });
    drop((has_begun, let_end));
}
