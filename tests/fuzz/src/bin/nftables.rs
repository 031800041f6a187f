//! libFuzzer's door to [`peerpods_fuzz::targets::nftables`].

#![no_main]

peerpods_fuzz::program!(nftables);
