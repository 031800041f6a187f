//! libFuzzer's door to [`peerpods_fuzz::targets::vm_record`].

#![no_main]

peerpods_fuzz::program!(vm_record);
