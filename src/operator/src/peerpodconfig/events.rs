//! Which Events a change of a PeerPodConfig's status is worth. Pure.

use peerpods_crds::{PeerPodConfig, PeerPodConfigStatus};

use super::status;
use crate::reconciled::Note;

/// A change of the condition, and keys in both places when the configuration is looked at for the first time after a change. `told` is the
/// status as it was written.
pub(super) fn notes(config: &PeerPodConfig, told: &PeerPodConfigStatus, clashes: &[String]) -> Vec<Note> {
    let before = config.status.clone().unwrap_or_default();
    if before == *told {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let ((old, _), (word, message)) = (reason(&before), reason(told));
    if old != word {
        let warning = !["Ready", status::STARTING].contains(&word.as_str());
        let text = match message.is_empty() {
            true => "the service runs and nodes advertise their VMs".to_owned(),
            false => message,
        };
        notes.push(Note { warning, reason: word, text });
    }
    if !clashes.is_empty() {
        let text = format!(
            "in both Secret {} and ConfigMap {}, the ConfigMap's counts: {}",
            config.spec.cloud_secret_name,
            config.spec.config_map_name,
            clashes.join(", ")
        );
        notes.push(Note { warning: true, reason: "KeyInBoth".to_owned(), text });
    }
    notes
}

fn reason(status: &PeerPodConfigStatus) -> (String, String) {
    status.conditions.first().map(|one| (one.reason.clone(), one.message.clone())).unwrap_or_default()
}
