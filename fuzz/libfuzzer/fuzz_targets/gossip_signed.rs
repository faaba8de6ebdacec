#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overlay_fuzz::run("gossip_signed", bytes));
