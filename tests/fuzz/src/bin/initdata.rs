//! libFuzzer's door to [`peerpods_fuzz::targets::initdata`].

#![no_main]

peerpods_fuzz::program!(initdata);
