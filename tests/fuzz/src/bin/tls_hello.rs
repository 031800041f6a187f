//! libFuzzer's door to [`peerpods_fuzz::targets::tls_hello`].

#![no_main]

peerpods_fuzz::program!(tls_hello);
