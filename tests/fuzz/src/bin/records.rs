//! libFuzzer's door to [`peerpods_fuzz::targets::records`].

#![no_main]

peerpods_fuzz::program!(records);
