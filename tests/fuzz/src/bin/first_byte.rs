//! libFuzzer's door to [`peerpods_fuzz::targets::first_byte`].

#![no_main]

peerpods_fuzz::program!(first_byte);
