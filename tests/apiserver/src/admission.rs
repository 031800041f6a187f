//! Webhooks: which are asked about a write, in which order, and what their answers do to it.
//!
//! [`hooks`] says which (pure), [`review`] makes the question and reads the answer (pure), [`call`] carries it over HTTPS.

mod call;
mod hooks;
mod review;

use serde_json::{Map, Value};

use self::hooks::Hook;
use self::review::Question;
use crate::object;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::write::{Call, Draft};

/// What only the server sets, and sets after mutating webhooks have been asked.
const LATER: [&str; 3] = ["uid", "creationTimestamp", "generation"];

/// Asks about a creation or a change. The draft comes back as webhooks made it.
pub(crate) async fn admit(
    shared: &Shared,
    call: &Call,
    operation: &'static str,
    user: &str,
    mut draft: Draft,
) -> Result<Draft, Refusal> {
    let before = draft.before.as_deref().map(|before| call.kind.present(before));
    let question = |object: Value| Question {
        call,
        operation,
        user,
        name: &draft.key.name,
        object: Some(object),
        before: before.clone(),
    };
    let mut object = call.kind.present(&draft.object);
    let kept = (operation == "CREATE").then(|| withhold(&mut object));
    let first = ask_mutating(shared, &question, &mut object, false).await?;
    if first {
        ask_mutating(shared, &question, &mut object, true).await?;
    }
    if let Some(kept) = kept {
        object::metadata(&mut object).extend(kept);
    }
    for hook in matching(shared, hooks::VALIDATING, &question(object.clone())) {
        call::ask(shared, &hook, &question(object.clone())).await?;
    }
    call.kind.absorb(&mut object);
    draft.object = object;
    Ok(draft)
}

/// Asks about a deletion.
pub(crate) async fn admit_deletion(
    shared: &Shared,
    call: &Call,
    user: &str,
    live: &Value,
) -> Result<(), Refusal> {
    let question = Question {
        call,
        operation: "DELETE",
        user,
        name: &call.name,
        object: None,
        before: Some(call.kind.present(live)),
    };
    for configurations in [hooks::MUTATING, hooks::VALIDATING] {
        for hook in matching(shared, configurations, &question) {
            call::ask(shared, &hook, &question).await?;
        }
    }
    Ok(())
}

fn matching(shared: &Shared, configurations: &str, question: &Question<'_>) -> Vec<Hook> {
    hooks::matching(&shared.store(), configurations, question)
}

/// Asks the mutating webhooks one after the other; `again`: those that want to see what others changed. True when something changed after
/// such a one was asked.
async fn ask_mutating<'a>(
    shared: &Shared,
    question: &impl Fn(Value) -> Question<'a>,
    object: &mut Value,
    again: bool,
) -> Result<bool, Refusal> {
    let hooks = matching(shared, hooks::MUTATING, &question(object.clone()));
    let mut asked = false;
    let mut changed_after = false;
    for hook in hooks.iter().filter(|hook| !again || hook.wants_to_see_changes) {
        let changed = match call::ask(shared, hook, &question(object.clone())).await? {
            Some(patch) => review::patched(hook, object, &patch)?,
            None => false,
        };
        changed_after |= changed && asked;
        asked |= hook.wants_to_see_changes;
    }
    Ok(changed_after)
}

/// Takes out what a new object does not have yet while mutating webhooks see it.
fn withhold(object: &mut Value) -> Map<String, Value> {
    let meta = object::metadata(object);
    let generated = meta.contains_key("generateName");
    LATER
        .into_iter()
        .chain(generated.then_some("name"))
        .filter_map(|field| meta.remove_entry(field))
        .collect()
}
