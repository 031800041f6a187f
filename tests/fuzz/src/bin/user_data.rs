//! libFuzzer's door to [`peerpods_fuzz::targets::user_data`].

#![no_main]

peerpods_fuzz::program!(user_data);
