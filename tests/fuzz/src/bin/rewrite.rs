//! libFuzzer's door to [`peerpods_fuzz::targets::rewrite`].

#![no_main]

peerpods_fuzz::program!(rewrite);
