//! libFuzzer's door to [`peerpods_fuzz::targets::create_vm`].

#![no_main]

peerpods_fuzz::program!(create_vm);
