//! From a path and a body to an answer: reads the question, has it decided, words the decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Pod;
use peerpods_crds::{KATACONFIG_GROUP, PEERPODS_GROUP};
use tracing::warn;

use super::super::certificates::Shown;
use super::super::faults::list;
use super::super::kataconfigs::{self, Existing, Verdict};
use super::super::peerpodconfigs;
use super::super::pods::{self, Decision, Seen, Settings};
use super::super::review::{Answer, Asked, Kind, Malformed, Operation, Read, read};
use super::super::stored::Stored;
use super::took::Took;
use super::{Configs, MUTATE_POD, VALIDATE_KATACONFIG, VALIDATE_PEERPODCONFIG};

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A pod.
    Pod,
    /// A `KataConfig`.
    KataConfig,
    /// A `PeerPodConfig`.
    PeerPodConfig,
}

impl Question {
    const ALL: [Self; 3] = [Self::Pod, Self::KataConfig, Self::PeerPodConfig];

    /// What is asked at a path.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|question| question.path() == path)
    }

    /// Where it is asked.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Pod => MUTATE_POD,
            Self::KataConfig => VALIDATE_KATACONFIG,
            Self::PeerPodConfig => VALIDATE_PEERPODCONFIG,
        }
    }

    pub(super) fn paths() -> String {
        Self::ALL.map(Self::path).join(", ")
    }

    fn kind(self) -> Kind {
        match self {
            Self::Pod => Kind::new("", "v1", "Pod"),
            Self::KataConfig => Kind::new(KATACONFIG_GROUP, "v1", "KataConfig"),
            Self::PeerPodConfig => Kind::new(PEERPODS_GROUP, "v1alpha1", "PeerPodConfig"),
        }
    }
}

/// How questions were answered, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// The object may be stored as it is.
    pub allowed: AtomicU64,
    /// The object may be stored, changed.
    pub patched: AtomicU64,
    /// The object may not be stored.
    pub refused: AtomicU64,
    /// No question was understood.
    pub malformed: AtomicU64,
    pods: Took,
    kataconfigs: Took,
    peerpodconfigs: Took,
}

impl Counts {
    /// How long answers to such questions took.
    #[must_use]
    pub fn took(&self, question: Question) -> &Took {
        match question {
            Question::Pod => &self.pods,
            Question::KataConfig => &self.kataconfigs,
            Question::PeerPodConfig => &self.peerpodconfigs,
        }
    }
}

/// What answers.
pub struct Webhooks {
    settings: Settings,
    configs: Arc<dyn Configs>,
    shown: Shown,
    ending: AtomicBool,
    counts: Counts,
}

impl Webhooks {
    /// Answers by `settings`; `shown` is the certificate that is shown, or several.
    #[must_use]
    pub fn new(settings: Settings, configs: Arc<dyn Configs>, shown: impl Into<Shown>) -> Self {
        let (shown, ending, counts) = (shown.into(), AtomicBool::new(false), Counts::default());
        Self { settings, configs, shown, ending, counts }
    }

    /// How questions were answered.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Not ready any more, though questions are still answered.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn count_malformed(&self) {
        self.counts.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the API server should ask here.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_ending() {
            return Err("the webhook is ending".to_owned());
        }
        self.shown.ready(SystemTime::now())
    }

    /// Answers the question in `body`.
    ///
    /// # Errors
    /// When it is none, so that there is nothing to answer to.
    pub async fn answer(&self, question: Question, body: &[u8]) -> Result<Answer, Malformed> {
        let answered = match question {
            Question::Pod => self.pod(body),
            Question::KataConfig => self.kataconfig(body).await,
            Question::PeerPodConfig => self.peerpodconfig(body).await,
        };
        let counter = match &answered {
            Ok(answer) if !answer.allowed => &self.counts.refused,
            Ok(answer) if answer.patch.is_some() => &self.counts.patched,
            Ok(_) => &self.counts.allowed,
            Err(_) => &self.counts.malformed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answered
    }

    fn pod(&self, body: &[u8]) -> Result<Answer, Malformed> {
        let asked: Box<Asked<Seen>> = match read(body, &Question::Pod.kind())? {
            Read::Asked(asked) => asked,
            Read::Unreadable(answer) => return Ok(answer),
        };
        let Asked { request, object, .. } = *asked;
        let uid = &request.uid;
        let Some(pod) = object.map(Pod::from) else { return Ok(Answer::allowed(uid)) };
        Ok(match pods::decide(&request, &pod, &self.settings) {
            Decision::Unchanged => Answer::allowed(uid),
            Decision::Patched { patch, warnings } => Answer::patched(uid, &patch, warnings)
                .unwrap_or_else(|e| Answer::unavailable(uid, format!("the patch cannot be written: {e}"))),
            Decision::Refused { class, faults } => Answer::forbidden(
                uid,
                format!(
                    "the pod cannot run in a VM of its own, as pods of runtime class {class} do: {}",
                    list(&faults)
                ),
            ),
        })
    }

    async fn kataconfig(&self, body: &[u8]) -> Result<Answer, Malformed> {
        let asked: Box<Asked<Stored>> = match read(body, &Question::KataConfig.kind())? {
            Read::Asked(asked) => asked,
            Read::Unreadable(answer) => return Ok(answer),
        };
        let existing = beside(&asked, self.configs.kataconfigs()).await;
        Ok(existing.map_or_else(
            |refused| refused,
            |existing| verdict(&asked, kataconfigs::decide(&asked, &existing)),
        ))
    }

    async fn peerpodconfig(&self, body: &[u8]) -> Result<Answer, Malformed> {
        let asked: Box<Asked<Stored>> = match read(body, &Question::PeerPodConfig.kind())? {
            Read::Asked(asked) => asked,
            Read::Unreadable(answer) => return Ok(answer),
        };
        let existing = beside(&asked, self.configs.peerpodconfigs()).await;
        Ok(existing.map_or_else(
            |refused| refused,
            |existing| verdict(&asked, peerpodconfigs::decide(&asked, self.configs.namespace(), &existing)),
        ))
    }
}

/// What there is beside an object that is to be created; others are not asked about. The error is the answer when nobody can say.
async fn beside(
    asked: &Asked<Stored>,
    existing: impl Future<Output = Result<Vec<Existing>, String>>,
) -> Result<Vec<Existing>, Answer> {
    if asked.request.operation != Operation::Create {
        return Ok(Vec::new());
    }
    let kind = &asked.request.kind.kind;
    existing.await.map_err(|error| {
        warn!(error = %error, "cannot tell whether there is a {kind}");
        let why = format!("cannot tell whether there is a {kind} already ({error}); try again");
        Answer::unavailable(&asked.request.uid, why)
    })
}

fn verdict(asked: &Asked<Stored>, verdict: Verdict) -> Answer {
    let uid = &asked.request.uid;
    match verdict {
        Verdict::Allowed => Answer::allowed(uid),
        Verdict::SecondOne(others) => {
            Answer::forbidden(uid, kataconfigs::second_one(&asked.request.kind.kind, &others))
        }
        Verdict::Invalid(faults) => Answer::invalid(uid, &faults),
    }
}
