//! VXLAN identifiers over random lives, restarts and damaged records: none is handed out twice.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use crate::place::{Place, Running, id};

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Start(usize),
    Stop(usize),
    Restart,
    /// The record of one is cut off behind its identifier while the service is down.
    Damage(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Create),
        2 => (0_usize..8).prop_map(Step::Start),
        2 => (0_usize..8).prop_map(Step::Stop),
        1 => Just(Step::Restart),
        1 => (0_usize..8).prop_map(Step::Damage),
    ]
}

struct Life {
    place: Place,
    running: Option<Running>,
    made: u32,
    /// Who may use which identifier.
    held: BTreeMap<String, u32>,
    damaged: Vec<u32>,
}

impl Life {
    fn nth(&self, n: usize) -> Option<String> {
        (!self.held.is_empty()).then(|| self.held.keys().nth(n % self.held.len()).unwrap().clone())
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Create => self.create().await,
            Step::Start(n) => {
                if let Some(name) = self.nth(n) {
                    self.running().start(&name).await.unwrap();
                }
            }
            Step::Stop(n) => {
                if let Some(name) = self.nth(n) {
                    self.running().stop(&name).await;
                    self.running().gone(&name).await;
                    self.held.remove(&name);
                }
            }
            Step::Restart => self.restart(|_| {}).await,
            Step::Damage(n) => {
                let Some(name) = self.nth(n) else { return };
                self.damaged.extend(self.held.remove(&name));
                let file = self.place.journal_dir().join(format!("{name}.json"));
                self.restart(|_| {
                    let text = fs::read_to_string(&file).unwrap();
                    fs::write(&file, &text[..text.find("\"vxlan_port\"").unwrap()]).unwrap();
                })
                .await;
            }
        }
    }

    async fn create(&mut self) {
        self.made += 1;
        let name = format!("sandbox-{}", self.made);
        self.running().create(&name).await.unwrap();
        let record = self.running().service.get(&id(&name)).unwrap().record.unwrap();
        assert!(!self.held.values().any(|vni| *vni == record.vni), "{} has a second owner", record.vni);
        assert!(!self.damaged.contains(&record.vni), "{} is of an unreadable record", record.vni);
        self.held.insert(name, record.vni);
    }

    async fn restart(&mut self, meanwhile: impl FnOnce(&Place)) {
        self.running.take().unwrap().end().await;
        meanwhile(&self.place);
        self.running = Some(self.place.open().await);
        for (name, vni) in &self.held {
            let kept = self.running().service.get(&id(name)).unwrap();
            // A driver publishes its record when it is first run.
            let kept = kept.record.map_or(*vni, |record| record.vni);
            assert_eq!(kept, *vni, "{name} has another identifier after a restart");
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn none_is_handed_out_twice(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut place = Place::new();
            place.config.limit_per_node = None;
            let running = Some(place.open().await);
            let mut life = Life { place, running, made: 0, held: BTreeMap::new(), damaged: Vec::new() };
            for step in steps {
                life.take(step).await;
            }
            life.running.take().unwrap().end().await;
        });
    }
}
