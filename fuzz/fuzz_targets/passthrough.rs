#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kagero_fuzz::passthrough(data));
