//! libFuzzer's door to [`peerpods_fuzz::targets::session_far`].

#![no_main]

peerpods_fuzz::program!(session_far);
