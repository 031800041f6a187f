//! Records of sandboxes on the node's disk, of this program's format, of older ones, and damaged.
//!
//! A file is a record or makes no sense. A record is written again as a file that gives the same record; no file of an older format loses the creation that
//! may have made a VM. Of a file that makes no sense the VNI and the cluster are salvaged only when they stand there whole; of
//! one that does make sense, the salvage agrees with the record, and of one that was cut off anywhere it tells the truth or nothing.

use peerpods_hypervisor::fuzzing::{file, record, salvaged};
use peerpods_hypervisor::record::Record;

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "journal", check, max_len: 1536, memory: 1 << 20, memory_per_byte: 256 };

fn check(data: &[u8]) {
    let found = salvaged(data, "one".parse().unwrap());
    match record(data) {
        Ok(record) => {
            let written = file(&record).unwrap();
            let again = peerpods_hypervisor::fuzzing::record(&written);
            assert_eq!(again.as_ref(), Ok(&record), "written again it is another");
            let found = salvaged(&written, record.sandbox.clone());
            assert_eq!((found.cluster.as_ref(), found.vni), (Some(&record.cluster), Some(record.vni)));
            assert!(found.vni.into_iter().chain(found.more_vnis).eq(record.vnis()), "not all identifiers");
            cut_off(&record, &written);
            for boot in ["b1", record.boot_id.as_str()] {
                let _ = (record.stage_after_restart(boot), record.why_after_restart(boot), record.may_have_vm());
            }
        }
        Err(why) => {
            assert!(why.len() < 2 * data.len() + 1024, "{} bytes of reason", why.len());
            if let Some(vni) = found.vni {
                let text = String::from_utf8_lossy(data);
                assert!(text.contains("\"vni\":") && text.contains(vni.to_string().trim_start_matches('0')));
            }
        }
    }
}

/// Cuts the file at every byte of the lines that the salvage looks for, and at the end of every other: in those nothing is to be found.
fn cut_off(record: &Record, written: &[u8]) {
    let real: Vec<u32> = record.vnis().collect();
    let mut cut = 0;
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let looked_for = ["\"vni\"", "\"cluster\""].iter().any(|key| text.contains(key));
        let first = if looked_for { 0 } else { line.len() - 1 };
        for at in first..line.len() {
            let found = salvaged(&written[..cut + at], record.sandbox.clone());
            let vnis: Vec<u32> = found.vni.into_iter().chain(found.more_vnis).collect();
            assert!(real.starts_with(&vnis), "cut at {}: {vnis:?} of {real:?}", cut + at);
            assert!(found.cluster.is_none_or(|cluster| cluster == record.cluster), "cut at {}", cut + at);
        }
        cut += line.len();
    }
}
