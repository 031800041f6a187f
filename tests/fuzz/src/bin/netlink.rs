//! libFuzzer's door to [`peerpods_fuzz::targets::netlink`].

#![no_main]

peerpods_fuzz::program!(netlink);
