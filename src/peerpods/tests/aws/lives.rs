//! One life of a node after the other, or side by side: a sandbox is run while strikes come, removed as kubelet would, and run anew.

use std::fmt;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use peerpods_test_require::Need;

use crate::far::Moment;
use crate::node::{Instances, Node, Plan};
use crate::{guests, server};

/// What every test with a node needs of its machine.
pub(crate) fn needs() -> Vec<Need> {
    let own = [
        Need::Root,
        Need::NetworkNamespaces,
        Need::Program("ip"),
        Need::Path("/bin/busybox"),
        Need::Variable(guests::PROGRAMS),
    ];
    [server::NEEDS, &own].concat()
}

/// How long links and guests may take to end on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a life went.
#[derive(Debug)]
pub(crate) struct Life {
    plan: Plan,
    /// Where something happened: number and action of the call.
    pub(crate) struck: Vec<(usize, String)>,
    /// Every call's action of the first run.
    pub(crate) calls: Vec<String>,
    /// Whether the first run's command was reached.
    pub(crate) first: First,
    /// Instances the first run made, and the second.
    pub(crate) made: (usize, Option<usize>),
    /// Most instances at once.
    pub(crate) most: usize,
    /// Instances that lived when the sandbox was gone.
    pub(crate) left: usize,
}

/// What became of the first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Its command printed what it should.
    Up,
    /// It failed: its sandbox was stopped.
    Stopped,
}

/// Lives `plan` in a thread and a network namespace of its own.
///
/// # Errors
/// What did not hold, for people.
pub(crate) fn live(moto: SocketAddr, plan: &Plan) -> Result<Life, String> {
    let owned = plan.clone();
    let lived = std::thread::spawn(move || life(moto, owned)).join();
    lived.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        format!("{plan:?}: {}", text.unwrap_or_else(|| "a panic without a text".to_owned()))
    })
}

fn life(moto: SocketAddr, plan: Plan) -> Life {
    let mut node = Node::new(moto, &plan);
    node.boot();
    let first = node.run(&[]);
    let sandbox = node.sandbox.clone();
    let reached = if is_up(&first) { First::Up } else { First::Stopped };
    if !first.status.success() {
        node.succeed(&["sandbox", "stop", "--timeout", "3m", &sandbox]);
    }
    let calls = node.far.calls();
    // What the first run did not come to is not the second's: that one says whether the node is well.
    node.far.calm();
    let left = node.ask(node.far.living()).len();
    let by_first = node.far.made().len();
    // One that is hidden is looked for at every end: once is enough. Over what was left nothing can be run.
    let goes_on = plan.instances == Instances::Shown && left == 0;
    let by_second = goes_on.then(|| run_anew(&mut node));
    let left = left.max(node.ask(node.far.living()).len());
    let tagged = node.ask(node.far.tagged(&sandbox));
    assert_eq!(tagged, node.far.made(), "an instance without our tags:\n{}", node.log());
    let life = Life {
        struck: node.far.struck(),
        calls,
        first: reached,
        made: (by_first, by_second),
        most: node.far.most(),
        left,
        plan,
    };
    // Where an instance is left its guest is, too; the first says more.
    if life.left == 0 {
        assert_nothing_left(&node);
    }
    life
}

/// Runs the sandbox a second time, which has to succeed; how many instances that made.
fn run_anew(node: &mut Node) -> usize {
    let before = node.far.made().len();
    let run = node.run(&[]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(is_up(&run) && run.status.success(), "the second run fails: {said}\n{}", node.log());
    node.far.made().len() - before
}

fn is_up(output: &Output) -> bool {
    output.stdout == b"up\n"
}

/// Waits until sandboxes have left nothing on the node.
pub(crate) fn assert_nothing_left(node: &Node) {
    let began = Instant::now();
    while !node.leftovers().is_empty() {
        assert!(began.elapsed() < PATIENCE, "left behind: {:#?}\n{}", node.leftovers(), node.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Lives all plans, so many at once; in their order.
pub(crate) fn side_by_side(moto: SocketAddr, plans: &[Plan], at_once: usize) -> Vec<Result<Life, String>> {
    let next = Mutex::new(plans.iter().enumerate());
    let lived = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some((number, plan)) = next.lock().unwrap().next() else { return };
                    let life = live(moto, plan);
                    // At once: whoever watches sees that it goes on.
                    if let Ok(life) = &life {
                        println!("{life}");
                    }
                    lived.lock().unwrap().push((number, life));
                }
            });
        }
    });
    let mut lived = lived.into_inner().unwrap();
    lived.sort_by_key(|(number, _)| *number);
    lived.into_iter().map(|(_, life)| life).collect()
}

/// Above the lines of lives.
#[must_use]
pub(crate) fn head() -> String {
    format!("{:<76} FIRST RUN  MADE  AT ONCE  LEFT", "AT WHICH CALL")
}

impl Life {
    /// What happened at which action.
    pub(crate) fn tried(&self) -> impl Iterator<Item = (&str, Moment)> {
        let moments = self.plan.strikes.iter().map(|strike| strike.moment);
        self.struck.iter().map(|(_, action)| action.as_str()).zip(moments)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one =
            |(moment, (number, action)): (&str, &(usize, String))| format!("{moment} {number} {action}");
        let words = self.plan.strikes.iter().map(|strike| word(strike.moment));
        let mut what = words.zip(&self.struck).map(one).collect::<Vec<_>>().join(", ");
        if self.struck.len() < self.plan.strikes.len() {
            what += &format!("ended before {:?}", self.plan.strikes[self.struck.len()].at);
        }
        if self.plan.instances == Instances::Hidden {
            what += " (not shown)";
        }
        let first = match self.first {
            First::Up => "up",
            First::Stopped => "stopped",
        };
        let made = match self.made {
            (first, Some(second)) => format!("{first}+{second}"),
            (first, None) => first.to_string(),
        };
        write!(f, "{what:<76} {first:<10} {made:<5} {:<8} {}", self.most, self.left)
    }
}

fn word(moment: Moment) -> &'static str {
    match moment {
        Moment::KilledBefore => "killed before",
        Moment::KilledAfter => "killed after",
        Moment::AnswerLost => "answer lost of",
    }
}
