//! What the functions decode: from an address to the function and register that answer.

use kagero_vfio::Region;

use super::{Decode, Space};

/// Ports end here.
const LAST_PORT: u64 = 0xffff;

/// A stretch of addresses that one function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u64,
    last: u64,
    /// Where the region begins: before `first`, if others have its beginning.
    base: u64,
    owner: usize,
    region: Region,
}

/// Where an access leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) owner: usize,
    /// The region.
    pub region: Region,
    /// The first byte in it.
    pub offset: u64,
}

/// All that functions decode. Where several decode the same, the first of them answers: on a real bus all of them would at once.
#[derive(Debug, Default)]
pub(super) struct Map {
    claims: Vec<Vec<Decode>>,
    // In order and apart, so that a look-up is a binary search.
    ports: Vec<Stretch>,
    memory: Vec<Stretch>,
}

impl Map {
    /// A map for `owners` functions that decode nothing yet.
    pub(super) fn new(owners: usize) -> Self {
        Map { claims: vec![Vec::new(); owners], ..Default::default() }
    }

    /// This is what `owner` decodes now.
    pub(super) fn set(&mut self, owner: usize, decodes: Vec<Decode>) {
        let Some(claim) = self.claims.get_mut(owner) else { return };
        if *claim == decodes {
            return;
        }
        *claim = decodes;
        self.ports.clear();
        self.memory.clear();
        for (owner, claims) in self.claims.iter().enumerate() {
            for &Decode { space, first, length, region } in claims {
                let last = length.checked_sub(1).and_then(|more| first.checked_add(more));
                let stretch = last.map(|last| Stretch { first, last, base: first, owner, region });
                match (space, stretch) {
                    (Space::Io, Some(stretch)) if stretch.last <= LAST_PORT => add(&mut self.ports, stretch),
                    (Space::Memory, Some(stretch)) => add(&mut self.memory, stretch),
                    (Space::Io | Space::Memory, _) => {}
                }
            }
        }
    }

    /// Where an access to `width` bytes from `address` on leads, if one function answers all of them.
    pub(super) fn find(&self, space: Space, address: u64, width: usize) -> Option<Found> {
        let stretches = match space {
            Space::Io => &self.ports,
            Space::Memory => &self.memory,
        };
        let after = stretches.partition_point(|stretch| stretch.first <= address);
        let stretch = stretches.get(after.checked_sub(1)?)?;
        let last = address.checked_add(width.checked_sub(1)? as u64)?;
        (last <= stretch.last).then_some(Found {
            owner: stretch.owner,
            region: stretch.region,
            offset: address - stretch.base,
        })
    }
}

/// Adds what of `claim` nobody has yet.
fn add(stretches: &mut Vec<Stretch>, claim: Stretch) {
    let mut first = claim.first;
    let mut index = stretches.partition_point(|stretch| stretch.last < first);
    loop {
        let next = stretches.get(index).copied().filter(|next| next.first <= claim.last);
        let free = match next {
            Some(next) => (first < next.first).then(|| next.first - 1),
            None => Some(claim.last),
        };
        if let Some(last) = free {
            stretches.insert(index, Stretch { first, last, ..claim });
            index += 1;
        }
        match next {
            Some(next) if next.last < claim.last => first = next.last + 1,
            _ => return,
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(space: Space, first: u64, length: u64, bar: u8) -> Decode {
        Decode { space, first, length, region: Region::Bar(bar) }
    }

    fn found(owner: usize, bar: u8, offset: u64) -> Option<Found> {
        Some(Found { owner, region: Region::Bar(bar), offset })
    }

    #[test]
    fn what_several_decode_the_first_of_them_answers() {
        let mut map = Map::new(2);
        map.set(1, vec![decode(Space::Memory, 0x1000, 0x3000, 0), decode(Space::Io, 0x1000, 8, 1)]);
        map.set(0, vec![decode(Space::Memory, 0x2000, 0x1000, 2)]);
        assert_eq!(map.find(Space::Memory, 0x1ffc, 4), found(1, 0, 0xffc));
        assert_eq!(map.find(Space::Memory, 0x1ffe, 4), None, "no function answers all of it");
        assert_eq!(map.find(Space::Memory, 0x2000, 4), found(0, 2, 0));
        assert_eq!(map.find(Space::Memory, 0x3000, 4), found(1, 0, 0x2000));
        assert_eq!(map.find(Space::Memory, 0x4000, 1), None);
        assert_eq!(map.find(Space::Io, 0x1007, 1), found(1, 1, 7));
        assert_eq!(map.find(Space::Io, 0x1007, 2), None);
        map.set(0, Vec::new());
        assert_eq!(map.find(Space::Memory, 0x1ffe, 4), found(1, 0, 0xffe));
    }

    #[test]
    fn what_reaches_past_the_end_of_its_space_is_not_decoded() {
        let mut map = Map::new(1);
        map.set(
            0,
            vec![
                decode(Space::Io, 0xfffc, 8, 0),
                decode(Space::Memory, u64::MAX - 1, 4, 1),
                decode(Space::Memory, 0, 0, 2),
            ],
        );
        assert_eq!(map.find(Space::Io, 0xfffc, 1), None);
        assert_eq!(map.find(Space::Memory, u64::MAX, 1), None);
        assert_eq!(map.find(Space::Memory, u64::MAX, 8), None);
        assert_eq!(map.find(Space::Memory, 0, 1), None);
    }

    proptest! {
        #[test]
        fn a_look_up_is_what_going_through_all_claims_finds(
            claims in prop::collection::vec(prop::collection::vec((0u64..40, 0u64..20), 0..4), 1..5),
        ) {
            let mut map = Map::new(claims.len());
            // Set last to first: the order in which they come is no matter.
            for (owner, claims) in claims.iter().enumerate().rev() {
                let claims = (0u8..).zip(claims).map(|(bar, (first, length))| {
                    decode(Space::Memory, *first, *length, bar)
                });
                map.set(owner, claims.collect());
            }
            for address in 0..64 {
                let by_hand = claims.iter().enumerate().find_map(|(owner, claims)| {
                    let mut claims = (0u8..).zip(claims);
                    let (bar, (first, _)) =
                        claims.find(|(_, (first, length))| (*first..first + length).contains(&address))?;
                    found(owner, bar, address - first)
                });
                prop_assert_eq!(map.find(Space::Memory, address, 1), by_hand);
            }
        }
    }
}
