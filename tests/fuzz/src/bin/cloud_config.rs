//! libFuzzer's door to [`peerpods_fuzz::targets::cloud_config`].

#![no_main]

peerpods_fuzz::program!(cloud_config);
