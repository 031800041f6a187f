//! libFuzzer's door to [`peerpods_fuzz::targets::annotations`].

#![no_main]

peerpods_fuzz::program!(annotations);
