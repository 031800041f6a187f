//! libFuzzer's door to [`peerpods_fuzz::targets::admission`].

#![no_main]

peerpods_fuzz::program!(admission);
