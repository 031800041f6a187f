//! libFuzzer's door to [`peerpods_fuzz::targets::config_file`].

#![no_main]

peerpods_fuzz::program!(config_file);
