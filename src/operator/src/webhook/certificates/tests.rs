use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::decide::{LAST_MOMENT, ROTATE_BEFORE_END, TRUSTED_FIRST};
use super::fake_store::FakeStore;
use super::held::{self, fresh};
use super::keeper::Place;
use super::make::{BACKDATED, LIFE, make};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn start() -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY
}

fn names() -> Vec<String> {
    names_of("peer-pods-webhook-svc", "ns")
}

fn mutating() -> Configuration {
    Configuration::Mutating("peerpods-webhook".to_owned())
}

fn place(source: Source) -> Place {
    Place {
        namespace: "ns".to_owned(),
        secret: "peer-pods-webhook-svc-secret".to_owned(),
        service: "peer-pods-webhook-svc".to_owned(),
        source,
        configurations: vec![mutating()],
    }
}

/// A store with one configuration that trusts nobody, and a keeper of it.
fn kept() -> (Arc<FakeStore>, Keeper, Serving) {
    let store = Arc::new(FakeStore::default());
    let webhooks = vec![("mwebhook.peerpods.io".to_owned(), None)];
    store.configure(mutating(), Configured { annotations: Vec::new(), webhooks });
    let (keeper, serving) = keeper_of(&store, Source::Own);
    (store, keeper, serving)
}

fn keeper_of(store: &Arc<FakeStore>, source: Source) -> (Keeper, Serving) {
    let serving = Serving::untrusted().unwrap();
    (Keeper::new(store.clone(), place(source), serving.clone()), serving)
}

fn ours(secret: &Secret) -> Held {
    match held::state_of(Some(secret)) {
        State::Ours(held) => *held,
        other => panic!("{other:?}"),
    }
}

fn of(store: &FakeStore) -> Held {
    ours(&store.secret().unwrap())
}

/// Whether an API server that trusts `bundle` takes `certificate` for the Service at `now`.
fn takes(bundle: &[u8], certificate: &str, now: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let name = ServerName::try_from(names()[0].clone()).unwrap();
    let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
    verifier.verify_server_cert(&leaf, &[], &name, &[], at).is_ok()
}

#[tokio::test]
async fn the_first_pass_makes_a_certificate_that_the_api_server_takes_and_the_second_writes_nothing() {
    let (store, keeper, serving) = kept();
    assert!(serving.ready(start()).is_err());
    keeper.pass(start()).await.unwrap();
    let held = of(&store);
    assert!(takes(&store.bundle(&mutating()).unwrap(), &held.serving.certificate, start()));
    assert_eq!(serving.ready(start()), Ok(()));
    let writes = store.writes();
    assert_eq!(writes, 2, "the Secret and the configuration");
    for _ in 0..3 {
        keeper.pass(start() + DAY).await.unwrap();
    }
    assert_eq!(store.writes(), writes);
}

#[tokio::test]
async fn of_two_replicas_one_makes_the_certificate_and_both_show_it() {
    let (store, one, _) = kept();
    let (two, serving_two) = keeper_of(&store, Source::Own);
    let (a, b) = tokio::join!(one.pass(start()), two.pass(start()));
    a.unwrap();
    b.unwrap();
    assert_eq!(serving_two.ready(start()), Ok(()));
    let bundle = store.bundle(&mutating()).unwrap();
    assert!(takes(&bundle, &of(&store).serving.certificate, start()));
}

#[tokio::test]
async fn a_rotation_never_shows_what_is_not_trusted_and_trusts_the_old_until_it_has_ended() {
    let (store, keeper, _) = kept();
    keeper.pass(start()).await.unwrap();
    let first = of(&store).serving.certificate;
    let mut shown = vec![first.clone()];
    let mut largest = 0;
    // Passes are hours apart, as if the webhook were restarted all the time, for four lives of a certificate.
    for hour in (0..4 * LIFE.as_secs() / 3600).step_by(7) {
        let now = start() + Duration::from_secs(hour * 3600);
        keeper.pass(now).await.unwrap();
        let bundle = store.bundle(&mutating()).unwrap();
        let held = of(&store);
        assert!(takes(&bundle, &held.serving.certificate, now), "hour {hour}");
        if shown.last() != Some(&held.serving.certificate) {
            let before = shown.last().unwrap();
            assert!(takes(&bundle, before, now), "a replica that has not read yet is taken, hour {hour}");
            shown.push(held.serving.certificate);
        }
        largest = largest.max(held.authorities.len());
    }
    assert!((5..=7).contains(&shown.len()), "{} certificates", shown.len());
    assert!(largest <= 3, "{largest} authorities at once");
}

#[tokio::test]
async fn after_a_long_absence_a_new_certificate_is_made_at_once() {
    let (store, keeper, serving) = kept();
    keeper.pass(start()).await.unwrap();
    let later = start() + 2 * LIFE;
    assert!(serving.ready(later).is_err());
    keeper.pass(later).await.unwrap();
    assert!(takes(&store.bundle(&mutating()).unwrap(), &of(&store).serving.certificate, later));
    assert_eq!(serving.ready(later), Ok(()));
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_shown_and_never_written() {
    let (store, keeper, serving) = kept();
    let made = make(&names(), start()).unwrap();
    let mut foreign = Secret { data: Some(fresh(&made)), ..Secret::default() };
    foreign.data.as_mut().unwrap().remove("ca.crt");
    store.put(foreign.clone());
    keeper.pass(start() + 170 * DAY).await.unwrap();
    assert_eq!((store.writes(), serving.ready(start())), (0, Ok(())));

    // The label of ours does not make it ours when service-ca or cert-manager signed it.
    for mark in ["service.beta.openshift.io/originating-service-name", "cert-manager.io/certificate-name"] {
        let mut marked = foreign.clone();
        marked.metadata.labels = Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into());
        marked.metadata.annotations = Some([(mark.to_owned(), "x".to_owned())].into());
        store.put(marked);
        keeper.pass(start() + 170 * DAY).await.unwrap();
        assert_eq!(store.writes(), 0, "{mark}");
    }
}

#[tokio::test]
async fn a_foreign_secret_that_cannot_be_used_is_told_with_its_name_and_not_replaced() {
    let (store, keeper, _) = kept();
    store.put(Secret::default());
    let error = keeper.pass(start()).await.unwrap_err();
    assert!(
        error.to_string().starts_with("Secret ns/peer-pods-webhook-svc-secret was not made by peerpods"),
        "{error}"
    );
    assert_eq!(store.writes(), 0);
}

#[tokio::test]
async fn where_others_are_to_make_the_certificate_nothing_is_made_and_no_bundle_written() {
    let (store, _, _) = kept();
    let annotations = vec![SERVICE_CA_INJECT.to_owned()];
    store.configure(mutating(), Configured { annotations, webhooks: vec![("w".to_owned(), None)] });
    for source in [Source::ServiceCa, Source::CertManager("ns/cert".to_owned())] {
        let (keeper, _) = keeper_of(&store, source);
        assert!(matches!(keeper.pass(start()).await, Err(KeeperError::NotYet { .. })));
    }
    // Made by cert-manager, with its authority: injecting is still theirs.
    let made = make(&names(), start()).unwrap();
    store.put(Secret { data: Some(fresh(&made)), ..Secret::default() });
    let (keeper, serving) = keeper_of(&store, Source::ServiceCa);
    keeper.pass(start()).await.unwrap();
    assert_eq!((store.writes(), serving.ready(start())), (0, Ok(())));
}

#[tokio::test]
async fn a_broken_secret_of_ours_is_made_anew() {
    for (key, value) in [("tls.crt", "x"), ("tls.key", ""), ("ca.crt", "none"), ("next.key", "x")] {
        let (store, keeper, _) = kept();
        keeper.pass(start()).await.unwrap();
        let mut broken = store.secret().unwrap();
        broken.data.as_mut().unwrap().insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        store.put(broken);
        keeper.pass(start()).await.unwrap();
        assert!(
            takes(&store.bundle(&mutating()).unwrap(), &of(&store).serving.certificate, start()),
            "{key}"
        );
    }
}

#[tokio::test]
async fn a_certificate_and_the_key_of_another_are_told_apart() {
    let (store, keeper, _) = kept();
    keeper.pass(start()).await.unwrap();
    let other = fresh(&make(&names(), start()).unwrap());
    let mut mixed = store.secret().unwrap();
    mixed.data.as_mut().unwrap().insert("tls.key".to_owned(), other["tls.key"].clone());
    assert!(matches!(held::state_of(Some(&mixed)), State::Broken(_)));
    let mut strange = store.secret().unwrap();
    strange.data.as_mut().unwrap().insert("ca.crt".to_owned(), other["ca.crt"].clone());
    // Both were made in the same second: only the signature tells, and the API server asks for that.
    assert!(matches!(held::state_of(Some(&strange)), State::Broken(_)));
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing_that_is_shown() {
    let (store, keeper, serving) = kept();
    store.go_away(true);
    let error = keeper.pass(start()).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach the API server"), "{error}");
    store.go_away(false);
    keeper.pass(start()).await.unwrap();
    store.go_away(true);
    assert!(keeper.pass(start()).await.is_err());
    serving.missing("away".to_owned());
    assert_eq!(serving.ready(start()), Ok(()));
}

#[test]
fn each_state_has_its_step() {
    let now = start();
    let secret = |made: &super::make::Made| Secret {
        data: Some(fresh(made)),
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            ..Default::default()
        },
        ..Secret::default()
    };
    let step = |state: &State, trusted, after: Duration| decide(state, &names(), trusted, now + after);
    assert_eq!(step(&State::Missing, false, Duration::ZERO), Step::Make);
    assert_eq!(step(&State::Broken("x".to_owned()), false, Duration::ZERO), Step::Make);
    assert_eq!(step(&State::Foreign, false, 10 * LIFE), Step::Wait);

    let mut first = secret(&make(&names(), now).unwrap());
    let state = State::Ours(Box::new(ours(&first)));
    let rotation = LIFE - ROTATE_BEFORE_END;
    for (after, expected) in [
        (Duration::ZERO, Step::Wait),
        (rotation - DAY, Step::Wait),
        (rotation + DAY, Step::Stage),
        (LIFE, Step::Make),
    ] {
        assert_eq!(step(&state, true, after), expected, "{after:?}");
    }
    let elsewhere = names_of("peer-pods-webhook-svc", "other");
    assert_eq!(decide(&state, &elsewhere, true, now), Step::Make, "the namespace is another");

    let made = make(&names(), now + rotation).unwrap();
    first.data = Some(ours(&first).staged(&made));
    let staged = State::Ours(Box::new(ours(&first)));
    let soon = rotation + Duration::from_secs(60);
    let known = rotation + TRUSTED_FIRST;
    assert_eq!(step(&staged, true, soon), Step::Wait, "API servers may not have seen the configuration yet");
    assert_eq!(step(&staged, false, known), Step::Wait, "not trusted yet");
    assert_eq!(step(&staged, true, known), Step::Promote);
    assert_eq!(step(&staged, false, LIFE - LAST_MOMENT / 2), Step::Promote);

    first.data = Some(ours(&first).promoted());
    let promoted = ours(&first);
    assert_eq!((promoted.authorities.len(), promoted.next.is_none()), (2, true));
    let promoted = State::Ours(Box::new(promoted));
    assert_eq!(step(&promoted, true, known), Step::Wait);
    assert_eq!(step(&promoted, true, LIFE + DAY), Step::Forget);
    first.data = Some(ours(&first).forgotten(now + LIFE + DAY));
    assert_eq!(ours(&first).authorities.len(), 1);
    assert!(BACKDATED < ROTATE_BEFORE_END);
}

#[test]
fn no_key_is_ever_printed() {
    let made = make(&names(), start()).unwrap();
    let key = secrecy::ExposeSecret::expose_secret(&made.key).to_owned();
    let inside = key.lines().nth(1).unwrap();
    let secret = Secret { data: Some(fresh(&made)), ..Secret::default() };
    let pair = held::serving_of(&secret).unwrap();
    let printed = format!("{made:?} {pair:?} {:?}", Serving::untrusted().unwrap());
    assert!(!printed.contains(inside) && !printed.contains("PRIVATE"), "{printed}");
}
