#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| silkrate::fuzz::run("log_frames", bytes));
