//! libFuzzer's door to [`peerpods_fuzz::targets::agent_health`].

#![no_main]

peerpods_fuzz::program!(agent_health);
