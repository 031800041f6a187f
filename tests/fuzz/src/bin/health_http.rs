//! libFuzzer's door to [`peerpods_fuzz::targets::health_http`].

#![no_main]

peerpods_fuzz::program!(health_http);
