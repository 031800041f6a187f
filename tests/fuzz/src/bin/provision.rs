//! libFuzzer's door to [`peerpods_fuzz::targets::provision`].

#![no_main]

peerpods_fuzz::program!(provision);
