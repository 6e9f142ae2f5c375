//! What clients ask for, and what they hear of errors.

use kagero_aoe::target::{Fault, Range};

use super::{Random, all, open};
use crate::backend::Backend;
use crate::nbd::toy::{Deed, Manners, Toy, piece};
use crate::nbd::wire::{chunk, flag};

/// Random reads and writes, compared with a model.
fn behaves(toy: &Toy) {
    let nbd = open(toy);
    let size = nbd.size() as usize;
    let mut model = all(&nbd);
    let mut random = Random(5);
    for step in 0..300 {
        let at = random.below(size / 512) * 512;
        let length = ((1 + random.below(64)) * 512).min(size - at);
        match random.below(8) {
            0 => nbd.flush().unwrap(),
            1 => {
                nbd.trim(Range { offset: at as u64, length: length as u64 }).unwrap();
                // What a trim leaves is the server's to say.
                nbd.read(at as u64, &mut model[at..at + length]).unwrap();
            }
            2..5 => {
                let mut back = vec![0; length];
                nbd.read(at as u64, &mut back).unwrap();
                assert!(back == model[at..at + length], "step {step}");
            }
            other => {
                let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                nbd.write(at as u64, &data, other == 5).unwrap();
                model[at..at + length].copy_from_slice(&data);
                if other == 5 {
                    assert!(toy.stable()[at..at + length] == data, "step {step}");
                }
            }
        }
    }
    assert!(toy.disk() == model);
    nbd.flush().unwrap();
    assert!(toy.stable() == model);
}

#[test]
fn servers_of_all_manners() {
    let usual = Manners::default();
    let manners = [
        usual.clone(),
        Manners { structured: false, ..usual.clone() },
        Manners { go: false, structured: false, ..usual.clone() },
        Manners { blocks: Some((1, 8_192)), ..usual.clone() },
        Manners { blocks: Some((4_096, 12_288)), ..usual.clone() },
        Manners { blocks: Some((65_536, u32::MAX)), structured: false, ..usual.clone() },
        Manners { flags: flag::FLUSH, ..usual.clone() },
        Manners { flags: flag::FUA, ..usual },
    ];
    for (i, manners) in manners.into_iter().enumerate() {
        eprintln!("manners {i}");
        behaves(&Toy::new(manners));
    }
}

#[test]
fn parts_of_blocks_from_many_threads() {
    let toy = Toy::new(Manners { blocks: Some((4_096, 65_536)), size: 64 << 10, ..Manners::default() });
    let nbd = &open(&toy);
    std::thread::scope(|scope| {
        // Each has a sector of each block, and nobody's may be written over with what it was.
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 1..=20u8 {
                    for block in 0..16 {
                        let at = block * 4_096 + thread * 512;
                        nbd.write(at, &[round; 512], false).unwrap();
                        let mut back = [0; 512];
                        nbd.read(at, &mut back).unwrap();
                        assert_eq!(back, [round; 512]);
                    }
                }
            });
        }
    });
    assert!(toy.disk().iter().all(|&byte| byte == 20));
}

#[test]
fn many_requests_are_in_flight_at_once() {
    let toy = Toy::new(Manners::default());
    let nbd = &open(&toy);
    // The server answers nothing before it has eight requests, and then the last one first.
    let mut held = Vec::new();
    toy.set_whim(move |asked| {
        if asked.command != 0 {
            return Deed::Carry;
        }
        held.insert(0, *asked);
        if held.len() < 8 {
            // No answer yet: an empty text.
            return Deed::Hold(Vec::new());
        }
        let answers = held.drain(..).flat_map(|asked| {
            let data = [&asked.offset.to_be_bytes()[..], &vec![asked.offset as u8; 512]].concat();
            piece(&asked, chunk::DONE, chunk::DATA, &data)
        });
        Deed::Hold(answers.collect())
    });
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || {
                let mut back = [0; 512];
                for round in 0..10 {
                    let at = (round * 8 + thread) * 512;
                    nbd.read(at, &mut back).unwrap();
                    assert_eq!(back, [at as u8; 512]);
                }
            });
        }
    });
}

#[test]
fn errors_become_the_clients() {
    for structured in [true, false] {
        let toy = Toy::new(Manners { structured, ..Manners::default() });
        let nbd = open(&toy);
        toy.set_whim(|_| Deed::Fail(28));
        assert_eq!(nbd.write(0, &[1; 4_096], false), Err(Fault::Aborted));
        assert_eq!(nbd.read(0, &mut [1; 4_096]), Err(Fault::Aborted));
        // A hint.
        assert_eq!(nbd.trim(Range { offset: 0, length: 4_096 }), Ok(()));
        toy.set_whim(|_| Deed::Fail(5));
        let done = if structured { 4 } else { 0 };
        assert_eq!(nbd.write(0, &[1; 4_096], true), Err(Fault::Medium { done }));
        assert_eq!(nbd.read(8_192, &mut [1; 4_096]), Err(Fault::Medium { done }));
        assert_eq!(nbd.verify(8_192, 4_096), Err(Fault::Medium { done }));
        assert_eq!(toy.disk(), vec![0; 1 << 20]);
        // The connection has survived all that, and its faults don't last.
        toy.set_whim(|_| Deed::Carry);
        nbd.write(0, &[1; 4_096], true).unwrap();
        // But a flush that failed once may have lost what was written.
        toy.set_whim(|_| Deed::Fail(5));
        assert_eq!(nbd.flush(), Err(Fault::Aborted));
        toy.set_whim(|_| Deed::Carry);
        assert_eq!(nbd.flush(), Err(Fault::Aborted));
        assert_eq!(nbd.write(0, &[1; 512], true), Err(Fault::Aborted));
        assert_eq!(nbd.write(0, &[1; 512], false), Ok(()));
    }
}
