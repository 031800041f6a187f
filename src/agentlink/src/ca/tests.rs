use std::fs;
use std::os::unix::fs::PermissionsExt;

use x509_parser::prelude::ParsedExtension;

use super::*;

fn parsed(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_authority_survives_and_lies_in_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("deeper/ca");
    let first = ClusterCa::load_or_create(&place).unwrap();
    let second = ClusterCa::load_or_create(&place).unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(place.join("ca.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "something was left beside it");
}

#[test]
fn callers_that_ask_at_once_get_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let asked: Vec<String> = std::thread::scope(|scope| {
        let ask = || ClusterCa::load_or_create(dir.path()).unwrap().certificate_pem().to_owned();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(asked.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_key_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    ClusterCa::load_or_create(dir.path()).unwrap();
    let file = dir.path().join("ca.pem");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let error = ClusterCa::load_or_create(dir.path()).unwrap_err();
    assert!(matches!(error, CaError::Exposed { mode: 0o640, .. }), "{error}");
    assert!(error.to_string().contains("0640"), "{error}");
}

#[test]
fn a_directory_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = ClusterCa::load_or_create(dir.path()).unwrap_err();
    assert!(matches!(error, CaError::Exposed { mode: 0o777, .. }), "{error}");
}

#[test]
fn a_file_that_was_cut_off_is_named_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    ClusterCa::load_or_create(dir.path()).unwrap();
    let file = dir.path().join("ca.pem");
    let whole = fs::read(&file).unwrap();
    for cut in [0, 10, whole.len() / 4, whole.len() / 2, whole.len() - 20] {
        fs::write(&file, &whole[..cut]).unwrap();
        let error = ClusterCa::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, CaError::Incomplete { .. }), "cut at {cut}: {error}");
        assert!(error.to_string().contains("ca.pem"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), &whole[..cut]);
    }
}

#[test]
fn a_key_of_another_authority_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ClusterCa::load_or_create(one.path()).unwrap();
    let other = ClusterCa::load_or_create(two.path()).unwrap();
    let file = one.path().join("ca.pem");
    let text = fs::read_to_string(&file).unwrap();
    let mixed = text.replace(certificate_block(&text).unwrap(), other.certificate_pem());
    fs::write(&file, mixed).unwrap();
    let error = ClusterCa::load_or_create(one.path()).unwrap_err();
    assert!(matches!(error, CaError::Unusable { .. }), "{error}");
}

#[test]
fn leaves_have_the_shape_stock_peers_expect() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::load_or_create(dir.path()).unwrap();
    let pair = ca.issue_server("podvm-web-0-0123abcd").unwrap();
    assert!(pair.expose_key().starts_with("-----BEGIN PRIVATE KEY-----"));
    let der = parsed(&pair.certificate);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 2 * 365 * 86_400 + 300);
    assert!(!leaf.is_ca() && leaf.basic_constraints().unwrap().is_some());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(
        leaf.extensions()
            .iter()
            .any(|e| matches!(e.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_)))
    );
    let client = ca.issue_client("link-0123").unwrap();
    let der = parsed(&client.certificate);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
}

#[test]
fn names_that_cannot_stand_in_a_certificate_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::load_or_create(dir.path()).unwrap();
    for bad in ["", "a b", "é", "-", &"x".repeat(300)] {
        assert!(matches!(ca.issue_server(bad), Err(CaError::Name { .. })), "{bad:?} was accepted");
    }
    assert!(matches!(ca.issue_client(&"x".repeat(65)), Err(CaError::Name { .. })));
}

#[test]
fn nothing_secret_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::load_or_create(dir.path()).unwrap();
    let pair = ca.issue_client("x").unwrap();
    let secret = pair.expose_key().lines().nth(1).unwrap();
    let shown = format!("{ca:?} {pair:?}");
    assert!(!shown.contains("PRIVATE KEY") && !shown.contains(secret), "{shown}");
}
