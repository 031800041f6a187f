//! libFuzzer's door to [`peerpods_fuzz::targets::qmp`].

#![no_main]

peerpods_fuzz::program!(qmp);
