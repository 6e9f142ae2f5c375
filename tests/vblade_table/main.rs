//! What vblade 25 does badly, point by point, done by `kagero serve`: the built program, asked with raw frames over a cable.
//!
//! Some points are of speed. No test measures time: here is what makes the difference, counted, and `cargo xtask bench target` measures, side by
//! side with vblade.
//!
//! | vblade 25 | the test |
//! |---|---|
//! | two legal frames abort it | `frames::two_legal_frames_do_not_end_it` |
//! | mask and config read stale bytes beyond the frame | `frames::lists_and_strings_that_end_after_the_frame_are_refused` |
//! | answers leak bytes of earlier frames | `frames::answers_of_60_bytes_hold_only_zeros_behind_their_own` |
//! | FLUSH CACHE does not sync, FLUSH CACHE EXT is aborted | `disk::flushes_reach_the_medium_and_what_was_flushed_survives_a_kill` |
//! | few commands, an empty IDENTIFY | `disk::all_commands_of_a_disk_and_a_complete_identify` |
//! | CHECK POWER MODE, version, count 0, WRITE to broadcast | `frames::power_mode_version_count_and_broadcast_are_as_specified` |
//! | a read, a pread and a write for each frame, one at a time | `engine::frames_take_less_than_a_system_call_each`; `batches.rs` and `engine/tests.rs` of `kagero-target` |
//! | O_DIRECT: one request at a time | `engine::many_direct_requests_are_on_their_way_at_once` |
//! | a process an export | `engine::two_hundred_disks_are_one_small_process` |
//! | dies when the interface goes down or a send fails | `engine::an_interface_that_goes_down_is_waited_for` |
//! | the size is fixed, what clients set is lost | `disk::disks_grow_and_what_clients_set_survives` |
//! | the receive buffer is for one client | `engine::a_client_that_asks_for_more_than_announced_gets_all_its_answers` |

mod bed;
#[path = "../../aoe/target/tests/cachestat/mod.rs"]
mod cachestat;
mod disk;
mod engine;
mod frames;
#[path = "../../aoe/link/tests/namespace/mod.rs"]
mod namespace;
