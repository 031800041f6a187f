//! libFuzzer's door to [`peerpods_fuzz::targets::console`].

#![no_main]

peerpods_fuzz::program!(console);
