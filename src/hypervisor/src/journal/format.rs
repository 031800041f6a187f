//! What a record's file says, and which programs can read it.
//!
//! ```json
//! { "version": 1, "format": 4, "sandbox": "…", … }
//! ```
//!
//! `format` is what the file was written as. `version` is the oldest format whose programs can still read it. A field that older
//! programs may overlook raises `format` only, so that going back to the program before works; a change of meaning raises both, and
//! then an older program stops instead of forgetting a VM. A file without `format` is of format 1.
//!
//! | format | `version` | what changed |
//! |---|---|---|
//! | 1 | 1 | – |
//! | 2 | 1 | `creations_unix_ms`: when the provider was asked to make the VM; `why` it is removed; `request.unattended` |
//! | 3 | 1 | `guest`: how the VM proves itself, and the key it is known by; `secondary`: the pod's further interfaces with their VXLAN identifiers (an older program does not know these are taken) |
//! | 4 | 1 | `tunnel.local`: the source address of the tunnel's packets (an older program leaves it to the routes) |
//!
//! Every format has its files under `tests/fixtures/journal/`, written by the program of its time.

use serde::{Deserialize, Serialize};

use crate::record::{Record, Stage};

/// The format written, and the newest one understood.
pub(super) const FORMAT: u32 = 4;
/// The oldest format whose programs read what is written.
const READ_SINCE: u32 = 1;
/// No record comes near so many bytes; a file that does was written by somebody else.
pub(super) const LARGEST: u64 = 1 << 20;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    format: u32,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
    #[serde(default = "first")]
    format: u32,
}

fn first() -> u32 {
    1
}

/// Why there is no record to be had from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It takes a program that reads this format.
    Newer(u32),
    /// It makes no sense.
    Senseless(String),
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec_pretty(&Written { version: READ_SINCE, format: FORMAT, record })
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, Unreadable> {
    let senseless = |e: serde_json::Error| Unreadable::Senseless(e.to_string());
    let Header { version, format } = serde_json::from_slice(bytes).map_err(senseless)?;
    if version > FORMAT {
        return Err(Unreadable::Newer(version));
    }
    if version == 0 || format < version {
        return Err(Unreadable::Senseless(format!(
            "has version {version} of format {format}, which never was"
        )));
    }
    let record = serde_json::from_slice(bytes).map_err(senseless)?;
    Ok(if format < 2 { count_the_creation(record) } else { record })
}

/// Format 1 did not count creations. Past Created there may have been one, begun no earlier than the sandbox was created.
fn count_the_creation(mut record: Record) -> Record {
    if record.stage != Stage::Created && record.creations_unix_ms.is_empty() {
        record.creations_unix_ms.push(record.created_unix_ms);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::a_record;
    use serde_json::{Value, json};

    fn written(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value = serde_json::from_slice(&encode(&a_record("one")).unwrap()).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    #[test]
    fn a_later_format_is_read_as_long_as_it_says_that_it_can_be() {
        let later = written(|v| {
            v["format"] = json!(FORMAT + 5);
            v["new_field"] = json!({ "what": "ever" });
        });
        assert_eq!(decode(&later), Ok(a_record("one")));
        let changed = written(|v| {
            v["format"] = json!(FORMAT + 1);
            v["version"] = json!(FORMAT + 1);
        });
        assert_eq!(decode(&changed), Err(Unreadable::Newer(FORMAT + 1)));
    }

    #[test]
    fn versions_that_never_were_make_no_sense() {
        for (version, format) in [(0, 0), (0, 2), (2, 1)] {
            let wrong = written(|v| (v["version"], v["format"]) = (json!(version), json!(format)));
            assert!(matches!(decode(&wrong), Err(Unreadable::Senseless(_))), "{version} {format}");
        }
    }

    #[test]
    fn a_record_of_format_1_that_may_have_a_vm_has_a_counted_creation() {
        for stage in [Stage::Created, Stage::Starting, Stage::Running, Stage::Stopping] {
            let old = written(|v| {
                v.as_object_mut().unwrap().remove("format");
                v["stage"] = serde_json::to_value(stage).unwrap();
            });
            let record = decode(&old).unwrap();
            assert_eq!(record.may_have_vm(), stage != Stage::Created, "{stage:?}");
            assert_eq!(record.creations_unix_ms.is_empty(), stage == Stage::Created, "{stage:?}");
        }
    }
}
