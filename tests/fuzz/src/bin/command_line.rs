//! libFuzzer's door to [`peerpods_fuzz::targets::command_line`].

#![no_main]

peerpods_fuzz::program!(command_line);
