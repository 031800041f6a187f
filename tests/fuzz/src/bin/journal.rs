//! libFuzzer's door to [`peerpods_fuzz::targets::journal`].

#![no_main]

peerpods_fuzz::program!(journal);
