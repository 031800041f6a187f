//! libFuzzer's door to [`peerpods_fuzz::targets::session`].

#![no_main]

peerpods_fuzz::program!(session);
