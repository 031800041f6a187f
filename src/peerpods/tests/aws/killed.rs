//! The daemon is killed between any two calls to EC2, before the call is carried out and after it, and started again on the same
//! state; instances are not shown, answers get lost. There is never more than one instance, and none is left.

use std::collections::BTreeSet;

use peerpods_test_require::require;

use crate::far::{At, Moment, Strike};
use crate::lives::{First, Life, head, live, needs, side_by_side};
use crate::node::{Instances, Plan};
use crate::server;

/// Lives at once: they wait more than they work.
const AT_ONCE: usize = 5;

fn plan(name: &str, instances: Instances, strikes: &[(At, Moment)]) -> Plan {
    let strikes = strikes.iter().map(|(at, moment)| Strike { at: *at, moment: *moment }).collect();
    Plan { name: name.to_owned(), strikes, instances }
}

/// Deaths before and after every call of an undisturbed life.
fn at_every_call(calls: usize) -> Vec<Plan> {
    let one = |number| {
        [("b", Moment::KilledBefore), ("a", Moment::KilledAfter)].map(|(letter, moment)| {
            plan(&format!("at{number}{letter}"), Instances::Shown, &[(At::Call(number), moment)])
        })
    };
    (1..=calls).flat_map(one).collect()
}

/// What goes wrong beside that.
fn in_worse_weather() -> Vec<Plan> {
    use Moment::{AnswerLost, KilledAfter, KilledBefore};
    let (run, end, look) =
        (At::Next("RunInstances"), At::Next("TerminateInstances"), At::Next("DescribeInstances"));
    vec![
        plan("unseen-run", Instances::Hidden, &[(run, KilledAfter)]),
        plan("unseen-lost", Instances::Hidden, &[(run, AnswerLost)]),
        plan("unseen-end", Instances::Hidden, &[(end, KilledBefore)]),
        plan("unseen-twice", Instances::Hidden, &[(run, KilledAfter), (look, KilledAfter)]),
        // Also where a look more than in the undisturbed life comes before it.
        plan("end-before", Instances::Shown, &[(end, KilledBefore)]),
        plan("end-after", Instances::Shown, &[(end, KilledAfter)]),
        plan("lost-run", Instances::Shown, &[(run, AnswerLost)]),
        plan("lost-end", Instances::Shown, &[(end, AnswerLost)]),
        plan("lost-killed", Instances::Shown, &[(run, AnswerLost), (run, KilledBefore)]),
        plan("twice-before", Instances::Shown, &[(run, KilledAfter), (end, KilledBefore)]),
        plan("twice-after", Instances::Shown, &[(run, KilledAfter), (end, KilledAfter)]),
    ]
}

#[test]
fn wherever_the_daemon_is_killed_there_is_one_instance_and_none_is_left() {
    let test = "wherever_the_daemon_is_killed_there_is_one_instance_and_none_is_left";
    if !require(test, &needs()) {
        return;
    }
    let moto = server::address();
    println!("{}", head());
    let (undisturbed, lives) = std::thread::scope(|scope| {
        let worse = scope.spawn(|| side_by_side(moto, &in_worse_weather(), AT_ONCE));
        let undisturbed = live(moto, &plan("calm", Instances::Shown, &[])).unwrap();
        let mut lives = side_by_side(moto, &at_every_call(undisturbed.calls.len()), AT_ONCE);
        lives.extend(worse.join().unwrap());
        (undisturbed, lives)
    });
    let (lives, failed): (Vec<_>, Vec<_>) = lives.into_iter().partition(Result::is_ok);
    let lives: Vec<Life> = lives.into_iter().flatten().collect();
    println!("a life undisturbed: {}", undisturbed.calls.join(", "));
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} lives failed:\n{}", failed.len(), failed.join("\n\n"));
    judge(&undisturbed, &lives);
}

fn judge(undisturbed: &Life, lives: &[Life]) {
    assert_eq!((undisturbed.first, undisturbed.made), (First::Up, (1, Some(1))));
    for life in lives.iter().chain([undisturbed]) {
        assert!(life.made.0 <= 1, "the first run made {} instances: {life}", life.made.0);
        assert!(life.made.1.is_none_or(|made| made == 1), "the second run: {life}");
        assert!(life.most <= 1, "{} instances at once: {life}", life.most);
        assert_eq!(life.left, 0, "left: {life}");
    }
    // A call that came too late in one life is one of the last looks; no action of an undisturbed life may go untried.
    let tried: BTreeSet<(&str, Moment)> = lives.iter().flat_map(Life::tried).collect();
    for action in undisturbed.calls.iter().map(String::as_str) {
        for moment in [Moment::KilledBefore, Moment::KilledAfter] {
            assert!(tried.contains(&(action, moment)), "{action} was not tried: {moment:?}");
        }
    }
}
