//! Damaged and made-up frames: nothing panics, nothing grows, and nothing gets stuck.

use crate::model::*;
use crate::world::World;
use kagero_aoe::wire::ETHERTYPE;
use kagero_devices::storage::Operation;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_frames(frames in vec(vec(any::<u8>(), 0..120), 0..60), headed in any::<bool>()) {
        let mut world = World::new("delay=100us", 1, Target::new(100), |_| {}).attach();
        let tag = world.read(0, 40);
        for mut frame in frames {
            // Close enough to get past the first checks.
            let sent = world.transmit();
            if headed && frame.len() > 24 {
                frame[..6].copy_from_slice(&CLIENT.0);
                frame[6..12].copy_from_slice(&SERVER.0);
                frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
                frame[14..19].copy_from_slice(&[0x18, 0, 0, 7, 1]);
                frame[19] &= 1;
                if let Some(sent) = sent {
                    frame[20..24].copy_from_slice(&sent[20..24]);
                }
            }
            world.deliver(&frame);
        }
        // Made-up answers may have ended it, and made-up config answers may have confused it, but not for long.
        world.run_until(|world| world.initiator.commands() == 0);
        prop_assert!(world.outcome(tag).is_some());
    }

    #[test]
    fn garbled_frames(seed in any::<u64>(), mtu in prop_oneof![Just(1500usize), Just(9000)]) {
        let target = Target { sectors_per_frame: 17, strict: false, ..Target::new(5000) };
        let mut world = World::new("garble=30%,loss=2%,reorder=5%,delay=100us", seed, target, |config| config.mtu = mtu);
        world.run_for(Duration::from_secs(2));
        for n in 0..60u64 {
            let (lba, sectors) = (n * 37 % 4000, 1 + n as u32 * 7 % 64);
            match n % 3 {
                0 => world.read(lba, sectors),
                1 => world.write(lba, sectors, n as u8),
                _ => world.submit(Operation::Flush, Vec::new()),
            };
            world.run_for(Duration::from_millis(3));
        }
        let calm = "delay=100us".parse().unwrap();
        world.network.forth.set_faults(&calm);
        world.network.back.set_faults(&calm);
        world.run_until(|world| world.initiator.commands() == 0);
    }
}
