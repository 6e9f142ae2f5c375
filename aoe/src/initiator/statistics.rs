//! What an initiator counts.

use super::round_trip::RoundTrip;

/// Counts since the initiator was made.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Frames sent, resends and queries included.
    pub frames_sent: u64,
    /// AoE answers received for our address, useful or not.
    pub frames_received: u64,
    /// Bytes in the frames sent, without the Ethernet checksum.
    pub bytes_sent: u64,
    /// Bytes in the frames received.
    pub bytes_received: u64,
    /// Requests that were sent again: no answer in time, or later ones were answered long before.
    pub resends: u64,
    /// Requests that were sent again though an earlier copy was answered in the end: it was only slow.
    pub needless: u64,
    /// Answers to a request that was already answered or given up; the tag says so.
    pub stale: u64,
    /// Answers shorter than what they announce or than what was asked for.
    pub malformed: u64,
    /// Answers with the protocol's error flag: the target is there, but not the disk.
    pub refused: u64,
    /// Frames that were not for us, or not from our target.
    pub ignored: u64,
    /// Commands that had to wait since a copy of an earlier write to the same sectors could still arrive.
    pub held_back: u64,
    /// Commands that the target, or the policy for its loss, ended with an error.
    pub failed: u64,
    /// How often the target was lost.
    pub losses: u64,
    /// Requests that may be in the network at once, now.
    pub window: usize,
    /// Round-trip times of all answers.
    pub round_trip: RoundTrip,
}
