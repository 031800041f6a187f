//! Which Events a change of a KataConfig's status is worth. Pure.

use peerpods_crds::{KataConfigStatus, WORD_TRUE};

use super::status::{IN_PROGRESS, Reason};
use super::world::World;
use crate::reconciled::Note;
use crate::settings::Settings;

/// What is worth telling of the way from one status to the next.
#[must_use]
pub fn notes(before: &KataConfigStatus, after: &KataConfigStatus) -> Vec<Note> {
    let (old, new) = (reason(before), reason(after));
    let mut notes = Vec::new();
    if old != new {
        notes.push(transition(&old, &new, after));
    }
    for class in after.runtime_classes.iter().filter(|class| !before.runtime_classes.contains(class)) {
        let text = format!("pods can use the runtime class {class}");
        notes.push(Note { warning: false, reason: "RuntimeClassReady".to_owned(), text });
    }
    for node in after.kata_nodes.installed.iter().filter(|node| !before.kata_nodes.installed.contains(node)) {
        let text = format!("Kata Containers is on node {node}");
        notes.push(Note { warning: false, reason: "NodeInstalled".to_owned(), text });
    }
    notes
}

/// What an administrator should know of the pods' webhook, told when peer pods begin.
#[must_use]
pub fn of_webhook(world: &World, settings: &Settings, after: &KataConfigStatus) -> Option<Note> {
    let begin = |status: &KataConfigStatus| {
        status.runtime_classes.iter().any(|class| settings.peer_pod_classes.contains(class))
    };
    let begun = world.config.status.as_ref().is_some_and(begin);
    let text = world.webhook.match_conditions.warning().filter(|_| begin(after) && !begun)?.to_owned();
    Some(Note { warning: true, reason: "NoMatchConditions".to_owned(), text })
}

fn reason(status: &KataConfigStatus) -> (String, String) {
    let condition = status.conditions.iter().find(|one| one.kind == IN_PROGRESS);
    condition.map(|one| (one.reason.clone(), one.status.clone())).unwrap_or_default()
}

fn transition(old: &(String, String), new: &(String, String), after: &KataConfigStatus) -> Note {
    let message = after.conditions.iter().find(|one| one.kind == IN_PROGRESS).map(|one| one.message.clone());
    let message = message.unwrap_or_default();
    let warning = [
        Reason::Failed,
        Reason::BlockedByExistingKataPods,
        Reason::InvalidSpec,
        Reason::NoEligibleNodes,
        Reason::AnotherKataConfig,
        Reason::ForeignRuntimeClass,
    ]
    .iter()
    .any(|bad| bad.word() == new.0);
    let text = match (new.0.as_str(), message.is_empty()) {
        ("", _) if old.1 == WORD_TRUE => "all nodes are as asked for".to_owned(),
        ("", _) => "nothing is in the way any more".to_owned(),
        (_, false) => message,
        (_, true) => "nodes are being changed by the machine config operator; each reboots".to_owned(),
    };
    let reason = if new.0.is_empty() { "Done".to_owned() } else { new.0.clone() };
    Note { warning, reason, text }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use peerpods_crds::{Condition, KataNodes, WORD_FALSE};

    use super::*;
    use crate::webhook::configuration::MatchConditions;

    fn status(word: &str, reason: &str, message: &str) -> KataConfigStatus {
        let condition = Condition {
            kind: IN_PROGRESS.to_owned(),
            status: word.to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        KataConfigStatus { conditions: vec![condition], ..KataConfigStatus::default() }
    }

    #[test]
    fn an_older_api_server_is_told_of_when_peer_pods_begin_and_then_no_more() {
        let settings = Settings::default();
        let mut world = World::default();
        let after = KataConfigStatus {
            runtime_classes: vec!["kata".to_owned(), "kata-remote-cc".to_owned()],
            ..KataConfigStatus::default()
        };
        assert_eq!(of_webhook(&world, &settings, &after), None, "a newer one");
        world.webhook.match_conditions = MatchConditions::Unsupported;
        let note = of_webhook(&world, &settings, &after).unwrap();
        assert!(note.warning && note.text.contains("older than Kubernetes 1.28"));
        assert_eq!(of_webhook(&world, &settings, &KataConfigStatus::default()), None, "no peer pods");
        world.config.status = Some(after.clone());
        assert_eq!(of_webhook(&world, &settings, &after), None, "told already");
    }

    #[test]
    fn every_transition_is_told_once() {
        let installing = status(WORD_TRUE, "Installing", "");
        let blocked = status(WORD_FALSE, "BlockedByExistingKataPods", "pod shop/a");
        let idle = status(WORD_FALSE, "", "");
        assert_eq!(notes(&installing, &installing), []);
        let told = notes(&KataConfigStatus::default(), &installing);
        assert_eq!((told.len(), told[0].reason.as_str(), told[0].warning), (1, "Installing", false));
        let told = notes(&idle, &blocked);
        assert_eq!(
            (told[0].reason.as_str(), told[0].text.as_str(), told[0].warning),
            ("BlockedByExistingKataPods", "pod shop/a", true)
        );
        assert_eq!(notes(&installing, &idle)[0].reason, "Done");
    }

    #[test]
    fn nodes_and_classes_are_told_as_they_come() {
        let kata_nodes = KataNodes { installed: vec!["w0".to_owned()], ..KataNodes::default() };
        let after = KataConfigStatus {
            kata_nodes,
            runtime_classes: vec!["kata".to_owned()],
            ..KataConfigStatus::default()
        };
        let reasons: Vec<String> =
            notes(&KataConfigStatus::default(), &after).into_iter().map(|note| note.reason).collect();
        assert_eq!(reasons, ["RuntimeClassReady", "NodeInstalled"]);
    }
}
