//! libFuzzer's door to [`peerpods_fuzz::targets::certificates`].

#![no_main]

peerpods_fuzz::program!(certificates);
