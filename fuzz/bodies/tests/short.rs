//! A short run of every fuzzer, the same each time.

use kagero_devices::toy::Rng;

/// Calls `body` with so many inputs: bytes of all values, or mostly small ones, or few different ones; short and long.
fn run(body: fn(&[u8]), inputs: u64, longest: u64) {
    body(&[]);
    for seed in 0..inputs {
        let mut rng = Rng::new(seed);
        let length = 1 + rng.below(longest) as usize;
        let mut input = rng.bytes(length);
        match seed % 3 {
            0 => {}
            1 => input.iter_mut().filter(|_| rng.below(3) > 0).for_each(|byte| *byte %= 16),
            _ => {
                let palette = rng.bytes(5);
                input.iter_mut().for_each(|byte| *byte = palette[usize::from(*byte) % 5]);
            }
        }
        // Shown only when the body panics.
        println!("seed {seed}, {length} bytes");
        body(&input);
    }
}

#[test]
fn platform() {
    run(kagero_fuzz::platform, 8_000, 1_500);
}

#[test]
fn passthrough() {
    run(kagero_fuzz::passthrough, 4_000, 1_500);
}

#[test]
fn ide() {
    run(kagero_fuzz::ide, 6_000, 1_500);
}

#[test]
fn initiator() {
    run(kagero_fuzz::initiator, 4_000, 1_500);
}

#[test]
fn target() {
    run(kagero_fuzz::target, 8_000, 1_500);
}

#[test]
fn wire() {
    run(kagero_fuzz::wire, 20_000, 600);
}

#[test]
fn vhdx() {
    run(kagero_fuzz::vhdx, 2_000, 60);
}

#[test]
fn identify() {
    run(kagero_fuzz::identify, 20_000, 512);
}
