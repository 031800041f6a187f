//! The limit against random lives of sandboxes: starts, stops, deletions confirmed late, and restarts from what the journal holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::Stage;
use crate::record::tests::a_record;

fn record(number: u8, stage: Stage) -> Record {
    Record { stage, ..a_record(&format!("sandbox-{number}")) }
}

#[test]
fn the_refusal_names_limit_holders_and_what_to_do_and_stays_short() {
    let records: Vec<Record> = (0..40).map(|n| record(n, Stage::Running)).collect();
    let full = Capacity::new(Some(40), &records).take(&record(99, Stage::Created)).unwrap_err();
    let text = full.to_string();
    assert!(text.contains("may have 40 VMs (PEERPODS_LIMIT_PER_NODE) and has 40"), "{text}");
    assert!(text.contains("default/web (sandbox-)") && text.contains(" and 32 more"), "{text}");
    assert!(text.contains("raise the limit") && text.len() < 600, "{text}");
}

#[test]
fn a_lowered_limit_takes_nothing_away_and_lets_nobody_in() {
    let records = [record(1, Stage::Running), record(2, Stage::Starting), record(3, Stage::Created)];
    let capacity = Capacity::new(Some(1), &records);
    assert_eq!(capacity.check().unwrap_err().holders.len(), 2);
    assert!(capacity.take(&records[0]).is_ok(), "a holder keeps its slot");
    capacity.release(&records[0].sandbox);
    assert!(capacity.take(&records[2]).is_err());
    capacity.release(&records[1].sandbox);
    assert!(capacity.take(&records[2]).is_ok());
    assert!(Capacity::new(None, &records).check().is_ok());
    assert!(Capacity::new(Some(0), []).check().is_err());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create(u8),
    Start(u8),
    Run(u8),
    Stop(u8),
    Confirm(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_u8..12;
    prop_oneof![
        2 => who.clone().prop_map(Step::Create),
        3 => who.clone().prop_map(Step::Start),
        2 => who.clone().prop_map(Step::Run),
        2 => who.clone().prop_map(Step::Stop),
        2 => who.prop_map(Step::Confirm),
        1 => Just(Step::Restart),
    ]
}

/// A node: what its disk holds, which VMs there may be, and the count in memory.
struct Node {
    limit: u32,
    disk: BTreeMap<u8, Record>,
    vms: BTreeMap<u8, ()>,
    capacity: Capacity,
}

impl Node {
    fn take(&mut self, step: Step) {
        match step {
            Step::Create(n) => {
                if self.capacity.check().is_ok() {
                    self.disk.entry(n).or_insert_with(|| record(n, Stage::Created));
                }
            }
            Step::Start(n) => {
                let Some(created) = self.disk.get(&n).filter(|r| r.stage == Stage::Created).cloned() else {
                    return;
                };
                let stage = match self.capacity.take(&created) {
                    Ok(()) => Stage::Starting,
                    Err(_) => Stage::Stopping,
                };
                let mut next = Record { stage, ..created };
                if stage == Stage::Starting {
                    // From here on there may be a VM.
                    next.creations_unix_ms.push(1);
                    self.vms.insert(n, ());
                }
                self.disk.insert(n, next);
            }
            Step::Run(n) => {
                if let Some(r) = self.disk.get_mut(&n).filter(|r| r.stage == Stage::Starting) {
                    r.stage = Stage::Running;
                }
            }
            Step::Stop(n) => {
                if let Some(r) = self.disk.get_mut(&n) {
                    r.stage = Stage::Stopping;
                }
            }
            Step::Confirm(n) => {
                if self.disk.get(&n).is_some_and(|r| r.stage == Stage::Stopping) {
                    self.vms.remove(&n);
                    let gone = self.disk.remove(&n).unwrap();
                    self.capacity.release(&gone.sandbox);
                }
            }
            Step::Restart => {
                for r in self.disk.values_mut() {
                    r.stage = r.stage_after_restart(&r.boot_id.clone());
                }
                self.capacity = Capacity::new(Some(self.limit), self.disk.values());
            }
        }
    }
}

proptest! {
    #[test]
    fn there_are_never_more_vms_or_holders_than_the_limit_and_every_vm_has_a_holder(
        limit in 0_u32..5, steps in proptest::collection::vec(step(), 0..200),
    ) {
        let capacity = Capacity::new(Some(limit), []);
        let mut node = Node { limit, disk: BTreeMap::new(), vms: BTreeMap::new(), capacity };
        for step in steps {
            node.take(step);
            let holders = node.capacity.lock().len();
            prop_assert!(node.vms.len() <= holders, "{} VMs, {holders} holders after {step:?}", node.vms.len());
            prop_assert!(holders <= limit as usize, "{holders} holders after {step:?}");
        }
    }
}
