//! Any bytes as the answer of every shipped provider.

#![no_main]

#[path = "../answers.rs"]
#[expect(dead_code, reason = "the other programs need the rest")]
mod answers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| answers::try_all(input));
