//! Records of the QEMU provider's VMs, and an image's description.
//!
//! A record is written again as it was read. What a record of any version says it holds (address and bridge, which must not be given
//! away) is seen whenever it can be, and agrees with the record where that is understood. A description of an image is written again as it was read.

use peerpods_podvm::image::QemuImage;
use peerpods_provider_qemu::fuzzing::{holding, record};
use serde_json::Value;

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "vm_record", check, max_len: 512, memory: 1 << 16, memory_per_byte: 512 };

fn check(data: &[u8]) {
    let (address, bridge) = holding(data);
    if let Ok(written) = record(data) {
        assert_eq!(record(&written).as_ref(), Ok(&written), "written again it is another");
        let (again, bridge_again) = holding(&written);
        let value: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(again.map(|a| a.to_string()).as_deref(), value["address"].as_str());
        assert!(address == again && bridge == bridge_again, "an address is given away");
    }
    if let Ok(image) = serde_json::from_slice::<QemuImage>(data) {
        let written = serde_json::to_vec(&image).unwrap();
        assert_eq!(serde_json::from_slice::<QemuImage>(&written).unwrap(), image);
    }
}
