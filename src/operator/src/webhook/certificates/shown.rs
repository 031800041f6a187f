//! The certificates of one listener: one for each Service in front of it, told apart by the name that the peer asks for.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Serving;

/// What a listener shows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shown {
    first: Serving,
    /// Services' names and theirs.
    by_name: Arc<[(Vec<String>, Serving)]>,
}

impl From<Serving> for Shown {
    /// The same, whatever is asked for.
    fn from(serving: Serving) -> Self {
        Self { first: serving, by_name: Arc::new([]) }
    }
}

impl Shown {
    /// `first` to whoever asks for no name, or for one that nobody has; and of `more` the one whose names have the one that is asked for.
    #[must_use]
    pub fn new(first: Serving, more: Vec<(Vec<String>, Serving)>) -> Self {
        Self { first, by_name: more.into() }
    }

    fn of(&self, name: Option<&str>) -> &Serving {
        let is_meant = |names: &[String]| names.iter().any(|one| Some(one.as_str()) == name);
        self.by_name.iter().find(|(names, _)| is_meant(names)).map_or(&self.first, |(_, serving)| serving)
    }

    /// Whether the API server takes all that is shown.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ready(&self, now: SystemTime) -> Result<(), String> {
        self.first.ready(now)?;
        self.by_name.iter().try_for_each(|(_, serving)| serving.ready(now))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).key())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;

    use super::super::{held, make::make};
    use super::*;

    fn good(name: &str) -> Serving {
        let serving = Serving::untrusted().unwrap();
        let made = make(&[name.to_owned()], SystemTime::now()).unwrap();
        let secret = Secret { data: Some(held::fresh(&made)), ..Secret::default() };
        serving.show(&held::serving_of(&secret).unwrap());
        serving
    }

    #[test]
    fn who_asks_for_a_service_is_shown_its_certificate_and_anybody_else_the_first() {
        let (first, second) = (good("one.ns.svc"), good("two.ns.svc"));
        let shown = Shown::new(first.clone(), vec![(vec!["two.ns.svc".to_owned()], second.clone())]);
        for (name, expected) in [
            (Some("two.ns.svc"), &second),
            (Some("one.ns.svc"), &first),
            (Some("other"), &first),
            (None, &first),
        ] {
            assert_eq!(shown.of(name).key().cert, expected.key().cert, "{name:?}");
        }
    }

    #[test]
    fn all_have_to_be_good() {
        let bad = || Serving::untrusted().unwrap();
        let with = |first: Serving, more: Serving| Shown::new(first, vec![(vec!["b".to_owned()], more)]);
        let ready = |shown: Shown| shown.ready(SystemTime::now()).is_ok();
        assert!(ready(with(good("a"), good("b"))));
        assert!(!ready(with(bad(), good("b"))) && !ready(with(good("a"), bad())));
        assert!(ready(good("a").into()) && !ready(bad().into()));
    }
}
