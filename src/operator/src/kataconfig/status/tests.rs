use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as Deleted;

use super::super::world::Class;
use super::*;

fn planned() -> KataConfigStatus {
    let classes = ["kata", "kata-remote-cc", "extra"].map(str::to_owned).to_vec();
    let mut status = KataConfigStatus {
        runtime_class: "kata".to_owned(),
        runtime_classes: classes,
        ..KataConfigStatus::default()
    };
    status.installation_status.is_in_progress = WORD_FALSE.to_owned();
    status.un_installation_status.in_progress.status = WORD_FALSE.to_owned();
    status
}

fn failure() -> StepFailure {
    StepFailure { what: "cannot apply it".to_owned(), done: ["extra".to_owned()].into() }
}

#[test]
fn a_failure_claims_no_class_that_is_not_there_and_no_end() {
    let mut world = World::default();
    world.classes.insert("kata-remote-cc".to_owned(), Class::default());
    let status = failed(&world, &planned(), &failure(), Timestamp::UNIX_EPOCH);
    assert_eq!(status.runtime_classes, ["kata-remote-cc", "extra"]);
    assert_eq!(status.runtime_class, "kata-remote-cc");
    let condition = &status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_TRUE, "Failed"));
    assert_eq!(condition.message, "cannot apply it");
    assert_eq!(status.installation_status.is_in_progress, WORD_TRUE);
    world.config.metadata.deletion_timestamp = Some(Deleted(Timestamp::UNIX_EPOCH));
    let status = failed(&world, &planned(), &failure(), Timestamp::UNIX_EPOCH);
    assert_eq!(status.un_installation_status.in_progress.status, WORD_TRUE);
}

#[test]
fn a_failure_that_goes_on_keeps_its_time() {
    let mut world = World::default();
    let first = failed(&world, &planned(), &failure(), Timestamp::UNIX_EPOCH);
    world.config.status = Some(first.clone());
    let later = Timestamp::from_second(60).unwrap();
    assert_eq!(failed(&world, &planned(), &failure(), later), first);
}
