#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kagero_fuzz::vhdx(data));
