#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| bygone_fuzz::wal(data));
