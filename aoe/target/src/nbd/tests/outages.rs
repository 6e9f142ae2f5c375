//! Servers that go away, and what becomes of requests and of data that was not flushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kagero_aoe::target::{Fault, Range};

use super::{Random, open, pace, until};
use crate::Access;
use crate::backend::Backend;
use crate::nbd::Nbd;
use crate::nbd::toy::{Deed, Manners, Toy, piece, simple};
use crate::nbd::wire::{chunk, flag};

#[test]
fn a_connection_that_breaks_is_followed_by_another() {
    for structured in [true, false] {
        let toy = Toy::new(Manners { structured, ..Manners::default() });
        let nbd = open(&toy);
        nbd.write(0, &[7; 8_192], false).unwrap();
        let mut random = Random(1);
        // What breaks it, each once.
        for way in 0..12 {
            let fired = Arc::new(AtomicBool::new(false));
            let (once, length) = (Arc::clone(&fired), random.below(400));
            toy.set_whim(move |asked| {
                if once.swap(true, Ordering::Relaxed) {
                    return Deed::Carry;
                }
                let at = asked.offset.to_be_bytes();
                let outside = (asked.offset + 512).to_be_bytes();
                let data = [&at[..], &[9; 4_096]].concat();
                let said = match way {
                    0 => return Deed::Leave,
                    1 => return Deed::CarryAndLeave,
                    2 => return Deed::Fail(108),
                    3 => b"garbage that is no reply at all".to_vec(),
                    4 => simple(
                        &crate::nbd::toy::Asked { cookie: asked.cookie ^ 77, ..*asked },
                        0,
                        &[9; 4_096],
                    ),
                    // The middle of a reply.
                    5 => simple(asked, 0, &[9; 4_096])[..16 + length].to_vec(),
                    6 => piece(asked, 1, chunk::DATA, &data)[..20 + length].to_vec(),
                    7 => piece(asked, 1, chunk::DATA, &[&outside[..], &[9; 4_096]].concat()),
                    8 => [piece(asked, 0, chunk::DATA, &data), piece(asked, 1, chunk::DATA, &data)].concat(),
                    9 => piece(asked, 1, chunk::DATA, &data[..1_000]),
                    10 => piece(asked, 1, chunk::HOLE, &[&at[..], &u32::MAX.to_be_bytes()].concat()),
                    _ => {
                        let mut claim = piece(asked, 1, chunk::ERROR, &[]);
                        claim[16..].copy_from_slice(&u32::MAX.to_be_bytes());
                        claim
                    }
                };
                Deed::Say(said)
            });
            let mut back = [0; 4_096];
            nbd.read(4_096, &mut back).unwrap();
            assert_eq!(back, [7; 4_096], "way {way}");
            assert!(fired.load(Ordering::Relaxed));
        }
    }
}

#[test]
fn what_a_server_loses_is_written_again() {
    let toy = Toy::new(Manners::default());
    let nbd = open(&toy);
    nbd.write(0, &[1; 512], false).unwrap();
    nbd.write(512, &[1; 512], false).unwrap();
    nbd.flush().unwrap();
    nbd.write(0, &[2; 1_024], false).unwrap();
    // Durable, and over one that isn't.
    nbd.write(512, &[3; 512], true).unwrap();
    nbd.write(4_096, &[4; 512], false).unwrap();
    nbd.trim(Range { offset: 4_096, length: 512 }).unwrap();
    toy.lose_power();
    assert_eq!(toy.disk()[..512], [1; 512]);
    toy.come();
    nbd.flush().unwrap();
    let stable = toy.stable();
    assert_eq!((&stable[..512], &stable[512..1_024]), (&[2; 512][..], &[3; 512][..]));
    assert_eq!(stable[4_096..4_608], [0; 512]);
    // What was flushed is not written again.
    let writes = toy.count(1);
    toy.lose_power();
    toy.come();
    nbd.flush().unwrap();
    assert_eq!(toy.count(1), writes);
    // What can't be written again is lost, and every flush says so.
    nbd.write(0, &[5; 512], false).unwrap();
    toy.lose_power();
    toy.set_whim(|asked| if asked.command == 1 { Deed::Fail(28) } else { Deed::Carry });
    toy.come();
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    toy.set_whim(|_| Deed::Carry);
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    assert_eq!(nbd.write(0, &[5; 512], true), Err(Fault::Aborted));
    assert_eq!(nbd.read(0, &mut [0; 512]), Ok(()));
}

#[test]
fn much_that_is_unflushed_is_flushed() {
    let toy = Toy::new(Manners { size: 8 << 20, ..Manners::default() });
    let nbd = open(&toy);
    for i in 0..40 {
        nbd.write((i % 8) << 20, &vec![i as u8; 1 << 20], false).unwrap();
    }
    let flushes = toy.count(3);
    assert!((2..=3).contains(&flushes), "{flushes} flushes of 40 MiB");
}

#[test]
fn flushed_writes_outlive_a_server_that_loses_power_again_and_again() {
    const THREADS: usize = 6;
    let toy = Toy::new(Manners { size: 1 << 20, ..Manners::default() });
    let nbd = &open(&toy);
    let toy = &toy;
    let cycles = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = |thread: usize| {
            move || {
                let mut random = Random(thread as u64);
                let place = |i: usize| i * THREADS + thread;
                // What the last write to each place of this thread was.
                let mut written = [0u8; 16];
                while cycles.load(Ordering::Relaxed) < 12 {
                    for _ in 0..20 {
                        let (i, what) = (random.below(16), 1 + random.below(255) as u8);
                        nbd.write(place(i) as u64 * 2_048, &[what; 2_048], random.below(10) == 0).unwrap();
                        written[i] = what;
                        let mut back = [0; 2_048];
                        nbd.read(place(i) as u64 * 2_048, &mut back).unwrap();
                        assert_eq!(back, [what; 2_048]);
                    }
                    nbd.flush().unwrap();
                    let stable = toy.stable();
                    for (i, &what) in written.iter().enumerate() {
                        let found = &stable[place(i) * 2_048..][..2_048];
                        assert!(found.iter().all(|&byte| byte == what), "place {}", place(i));
                    }
                }
            }
        };
        let writers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(writer(thread))).collect();
        let mut random = Random(99);
        while writers.iter().any(|writer| !writer.is_finished()) {
            // After so many requests more.
            let enough = toy.count(1) + random.below(200);
            until(|| toy.count(1) >= enough || writers.iter().all(|writer| writer.is_finished()));
            toy.lose_power();
            toy.come();
            cycles.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[test]
fn patience_ends() {
    let toy = Toy::new(Manners::default());
    let nbd = Nbd::open(&toy.uri(), Access::ReadWrite, pace(300)).unwrap();
    nbd.write(0, &[1; 512], false).unwrap();
    toy.lose_power();
    assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
    assert_eq!(nbd.write(512, &[1; 512], false), Err(Fault::Aborted));
    assert_eq!(nbd.flush(), Err(Fault::Aborted));
    toy.come();
    // Nothing was lost, so all is well when it is back.
    until(|| nbd.flush().is_ok());
    assert_eq!(toy.stable()[..512], [1; 512]);
    // A request that no connection survives.
    toy.set_whim(|asked| if asked.command == 0 { Deed::Leave } else { Deed::Carry });
    assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
}

#[test]
fn another_disk_is_not_taken_for_the_one_before() {
    let changes: [fn(&mut Manners); 4] = [
        |manners| manners.size /= 2,
        |manners| manners.blocks = Some((4_096, 4_096)),
        |manners| manners.flags |= flag::READ_ONLY,
        |manners| manners.flags &= !flag::FLUSH,
    ];
    for change in changes {
        let toy = Toy::new(Manners::default());
        let nbd = Nbd::open(&toy.uri(), Access::ReadWrite, pace(500)).unwrap();
        toy.set_manners(change);
        toy.cut();
        assert_eq!(nbd.read(0, &mut [0; 512]), Err(Fault::Aborted));
        assert_eq!(toy.count(0), 0);
        toy.set_manners(|manners| *manners = Manners::default());
        until(|| nbd.read(0, &mut [0; 512]).is_ok());
    }
}

#[test]
fn the_end_is_said() {
    let toy = Toy::new(Manners::default());
    drop(open(&toy));
    until(|| toy.count(2) > 0);
}
