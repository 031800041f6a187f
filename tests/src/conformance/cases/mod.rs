//! The cases: whole lives, lives in which something goes wrong, requests no good shim makes, and what only our own service promises.

mod faults;
mod frames;
mod link;
mod lives;
mod own;
mod requests;
mod starts;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::play::Kind;
use super::play::steps::Step;
use super::world::World;
use super::{Model, Not};

/// What a case needs of its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Others may run beside it.
    Any,
    /// It is held at a step until all that are held are, and the service is restarted under them.
    Restart,
    /// Nobody else: it makes the cloud or the service fail for all.
    Alone,
}

/// How a case ends: with something measured, perhaps.
pub type Ending = Result<String, Not>;

/// A case's body.
pub type Body = fn(Arc<World>) -> BoxFuture<'static, Ending>;

/// What a case does.
#[derive(Clone, Copy)]
pub enum Act {
    /// Its own thing.
    Own(Body),
    /// A life in which something goes wrong at a step.
    Fault(Step, Kind),
}

/// One case.
#[derive(Clone)]
pub struct Case {
    /// Its name: `go/…`, `rs/…` or `request/…`.
    pub name: String,
    /// The shim, where it is one's.
    pub model: Option<Model>,
    /// Beside whom it runs.
    pub company: Company,
    /// Whether it needs a service that we control.
    pub needs_control: bool,
    /// What it does.
    pub act: Act,
}

/// How much of the suite there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every fault at every step.
    Whole,
    /// Every step dies and is restarted under; the other faults take turns.
    Turns,
    /// Two whole lives and a few faults, for VMs that take seconds to boot.
    Few,
}

/// The cases, in the order of the report.
#[must_use]
pub fn all(extent: Extent) -> Vec<Case> {
    let mut cases = lives::cases();
    if extent == Extent::Few {
        cases.truncate(lives::WHOLE);
        cases.extend(faults::few());
        return cases;
    }
    cases.extend(requests::cases());
    cases.extend(starts::cases());
    cases.extend(frames::cases());
    cases.extend(link::cases());
    cases.extend(faults::cases(extent));
    cases.extend(own::cases());
    cases
}

/// Runs a case that is not of a restart.
pub async fn run(case: &Case, world: Arc<World>) -> Ending {
    match (case.act, case.model) {
        (Act::Own(body), _) => {
            let _turn = world.turn().await;
            body(world.clone()).await
        }
        (Act::Fault(step, kind), Some(model)) => faults::run(world, model, step, kind).await,
        (Act::Fault(..), None) => Err(Not::Skipped("a fault needs a shim".to_owned())),
    }
}

pub use faults::Held;

/// The life that goes on beside all others; [`super::runner`] leads it.
#[must_use]
pub fn witness() -> Case {
    case("go/witness", Some(Model::Go), |_| Box::pin(async { Ok(String::new()) }))
}

/// A case with a body of its own that runs beside others, against anybody's service.
fn case(name: &str, model: Option<Model>, body: Body) -> Case {
    Case { name: name.to_owned(), model, company: Company::Any, needs_control: false, act: Act::Own(body) }
}

/// A case about what only our own service can show.
fn own_case(name: &str, company: Company, body: Body) -> Case {
    Case { name: name.to_owned(), model: None, company, needs_control: true, act: Act::Own(body) }
}
