//! libFuzzer's door to [`peerpods_fuzz::targets::control`].

#![no_main]

peerpods_fuzz::program!(control);
