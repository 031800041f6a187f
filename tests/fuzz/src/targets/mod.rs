//! The targets. Every one is named by what is read, and has its corpus under `corpus/` in a directory of that name.

/// A property and its bounds.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What must hold; panics when it does not.
    pub check: fn(&[u8]),
    /// The longest input in bytes; what is longer is cut.
    pub max_len: usize,
    /// Bytes a run may have on the heap whatever its input.
    pub memory: usize,
    /// Bytes more for each byte of input.
    pub memory_per_byte: usize,
}

/// What rust-protobuf 3.7 reserves upon a length that a message only announces: ten million elements, before it looks whether so much came. It
/// is not touched, and freed when the message is refused.
pub const PROTOBUF_RESERVES: usize = 80_000_000;

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// All targets.
        pub const TARGETS: &[&Target] = &[$(&$name::TARGET),*];
    };
}

targets![
    admission,
    agent_health,
    annotations,
    apf,
    certificates,
    cloud_config,
    command_line,
    config_file,
    console,
    control,
    create_vm,
    first_byte,
    frames,
    health_http,
    initdata,
    journal,
    netlink,
    nftables,
    provision,
    qmp,
    records,
    rewrite,
    session,
    session_far,
    tls_hello,
    user_data,
    vm_record,
];
