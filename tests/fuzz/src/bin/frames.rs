//! libFuzzer's door to [`peerpods_fuzz::targets::frames`].

#![no_main]

peerpods_fuzz::program!(frames);
