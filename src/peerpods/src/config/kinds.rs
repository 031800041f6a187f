//! What values look like: how each kind is read from text, what is expected in its place, how it is shown.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::duration;
use super::layers::Written;

/// A kind of value. `read` answers what is expected when the text is none.
pub struct Kind<T> {
    /// From what was written.
    pub read: fn(&Written) -> Result<T, String>,
    /// As `config show` prints it.
    pub show: fn(&T) -> serde_json::Value,
}

fn one(written: &Written) -> Result<&str, String> {
    match written {
        Written::Text(text) => Ok(text),
        Written::List(_) => Err("expected one value, not a list".to_owned()),
    }
}

fn shown<T: Display>(value: &T) -> serde_json::Value {
    value.to_string().into()
}

/// Any text.
pub const TEXT: Kind<String> = Kind { read: |w| one(w).map(str::to_owned), show: shown };

/// Words in an array of the file, or parted by commas.
pub const WORDS: Kind<Vec<String>> = Kind {
    read: |w| {
        Ok(match w {
            Written::Text(text) => {
                text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
            }
            Written::List(list) => list.clone(),
        })
    },
    show: |words| words.clone().into(),
};

/// An absolute path.
pub const PATH: Kind<PathBuf> = Kind {
    read: |w| {
        let path = PathBuf::from(one(w)?);
        if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
    },
    show: |path| path.display().to_string().into(),
};

/// A program: an absolute path, or a name looked for on the PATH.
pub const PROGRAM: Kind<PathBuf> = Kind {
    read: |w| {
        let path = PathBuf::from(one(w)?);
        let named = path.components().count() == 1 && !path.as_os_str().is_empty();
        if path.is_absolute() || named {
            Ok(path)
        } else {
            Err("expected an absolute path, or a name to be found on the PATH".to_owned())
        }
    },
    show: |path| path.display().to_string().into(),
};

/// A path a unix socket can have: absolute and at most 107 bytes.
pub const SOCKET: Kind<PathBuf> = Kind {
    read: |w| {
        let path = (PATH.read)(w)?;
        if path.as_os_str().len() <= SOCKET_MAX {
            Ok(path)
        } else {
            Err(format!(
                "has {} bytes; a unix socket's path has at most {SOCKET_MAX}",
                path.as_os_str().len()
            ))
        }
    },
    show: PATH.show,
};

/// The longest path of a unix socket, without its final zero.
pub const SOCKET_MAX: usize = 107;

/// What follows the pods directory in an agent socket's path: two slashes, a sandbox id of 64, `agent.ttrpc`.
const AGENT_SOCKET_TAIL: usize = 1 + 64 + 1 + "agent.ttrpc".len();

/// The directory of agent sockets: short enough for them, and free of what shims take for part of a URL.
pub const PODS_DIR: Kind<PathBuf> = Kind {
    read: |w| {
        let path = (PATH.read)(w)?;
        let longest = SOCKET_MAX - AGENT_SOCKET_TAIL;
        if path.as_os_str().len() > longest {
            return Err(format!(
                "expected at most {longest} bytes, so that agent sockets below it fit into {SOCKET_MAX}"
            ));
        }
        match path.to_string_lossy().chars().find(|c| matches!(c, ':' | '%' | '?' | '#' | ' ')) {
            Some(bad) => Err(format!("must not have {bad:?}: shims read the path as part of a URL")),
            None => Ok(path),
        }
    },
    show: PATH.show,
};

/// A port.
pub const PORT: Kind<u16> = Kind {
    read: |w| match one(w)?.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("expected a port number from 1 to 65535".to_owned()),
    },
    show: |port| (*port).into(),
};

/// The highest VXLAN network identifier: 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;

/// A VXLAN network identifier.
pub const VNI: Kind<u32> = Kind {
    read: |w| match one(w)?.parse() {
        Ok(vni) if (1..=VNI_MAX).contains(&vni) => Ok(vni),
        _ => Err(format!("expected a VXLAN network identifier from 1 to {VNI_MAX}")),
    },
    show: |vni| (*vni).into(),
};

/// A whole number, negative ones too.
pub const WHOLE: Kind<i32> = Kind {
    read: |w| one(w)?.parse().map_err(|_| "expected a whole number".to_owned()),
    show: |number| (*number).into(),
};

/// An IP address and a port to listen on, or `off`.
pub const LISTEN: Kind<Option<SocketAddr>> =
    Kind {
        read: |w| match one(w)? {
            "off" => Ok(None),
            text => match text.parse::<SocketAddr>() {
                Ok(address) if address.port() > 0 => Ok(Some(address)),
                _ => Err("expected an IP address and a port such as 127.0.0.1:15151 or [::1]:15151, or off"
                    .to_owned()),
            },
        },
        show: |address| address.map_or_else(|| "off".to_owned(), |address| address.to_string()).into(),
    };

/// A duration longer than nothing.
pub const DURATION: Kind<Duration> = Kind {
    read: |w| match duration::parse(one(w)?) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err("must be longer than 0".to_owned()),
        None => Err(format!("expected {}", duration::EXPECTED)),
    },
    show: |duration| duration::show(*duration).into(),
};

/// The name of a network interface, 1 to 15 characters.
pub const INTERFACE: Kind<String> = Kind {
    read: |w| {
        let name = one(w)?;
        let fits =
            (1..=15).contains(&name.len()) && !name.contains(['/', ' ']) && name != "." && name != "..";
        if fits {
            Ok(name.to_owned())
        } else {
            Err("expected an interface name of 1 to 15 characters".to_owned())
        }
    },
    show: shown,
};

/// The longest name of a Kubernetes node.
const NODE_MAX: usize = 253;

/// The name of a node, fit for a tag at every provider.
pub const NODE: Kind<String> = Kind {
    read: |w| {
        let name = one(w)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if (1..=NODE_MAX).contains(&name.len()) && name.chars().all(allowed) {
            Ok(name.to_owned())
        } else {
            Err(format!("expected a node's name: 1 to {NODE_MAX} letters, digits, dots and dashes"))
        }
    },
    show: shown,
};

/// A level or a filter of log lines, as tracing-subscriber 0.3 reads it. Its parser counts a directive's bytes without the blanks before it
/// and cuts it with them: with a blank behind a comma the wrong target is heard, and a character may be cut in two, which panics. So it
/// gets no such blanks, and nothing but ASCII.
pub const LOG_FILTER: Kind<String> = Kind {
    read: |w| {
        let text = one(w)?.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        if text.is_ascii() && tracing_subscriber::EnvFilter::builder().parse(&text).is_ok() {
            return Ok(text);
        }
        let expected =
            "expected error, warn, info, debug, trace, or a filter such as info,peerpods_podnet=debug";
        Err(expected.to_owned())
    },
    show: shown,
};

/// Whatever reads itself from text, with the expectation said in its own error.
pub fn parsed<T>(written: &Written) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    one(written)?.parse().map_err(|error: T::Err| error.to_string())
}

/// One of a few words: reads through `table` and names all of them when the text is none.
pub fn word<T: Copy>(written: &Written, table: &[(&str, T)]) -> Result<T, String> {
    let text = one(written)?;
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    table
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("expected {}", names.join(" or ")))
}

/// The name a word's value has in its table.
pub fn name_of<T: Copy + PartialEq>(value: T, table: &[(&'static str, T)]) -> &'static str {
    table.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}
