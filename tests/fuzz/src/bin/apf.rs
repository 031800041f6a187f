//! libFuzzer's door to [`peerpods_fuzz::targets::apf`].

#![no_main]

peerpods_fuzz::program!(apf);
