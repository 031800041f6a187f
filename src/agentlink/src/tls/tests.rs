use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::ca::ClusterCa;

struct Authority {
    ca: ClusterCa,
    _dir: tempfile::TempDir,
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().unwrap();
    Authority { ca: ClusterCa::load_or_create(dir.path()).unwrap(), _dir: dir }
}

/// Both ends talk over a pipe; answers what each of them saw.
async fn talk(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> (io::Result<[u8; 2]>, io::Result<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serve = async {
        let mut tls = TlsAcceptor::from(server).accept(far).await?;
        tls.write_all(b"ok").await?;
        tls.shutdown().await
    };
    let call = async {
        let mut tls = TlsConnector::from(client).connect(name, near).await?;
        let mut read = [0; 2];
        tls.read_exact(&mut read).await.map(|_| read)
    };
    tokio::join!(call, serve)
}

fn identity(from: &ClusterCa, trusts: &ClusterCa) -> LinkIdentity {
    let pair = from.issue_client("link").unwrap();
    LinkIdentity {
        certificate: pair.certificate.clone(),
        key: pair.expose_key().to_owned(),
        authority: trusts.certificate_pem().to_owned(),
    }
}

fn server(from: &ClusterCa, admits: &str, min: MinVersion) -> Arc<ServerConfig> {
    let pair = from.issue_server("podvm-a").unwrap();
    far_server(FarKeys { certificate: &pair.certificate, key: pair.expose_key(), client_ca: admits }, min)
        .unwrap()
}

/// A client certificate as a stock daemon makes it: self-signed, no CA, and allowed to sign by its key usage.
fn stock_client(from_now: Duration, adjust: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "cloud-api-adaptor");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - Duration::from_secs(300));
    params.not_after = params.not_before + from_now;
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn with_client(identity: &LinkIdentity, pair: &(String, String)) -> Arc<ClientConfig> {
    near_client(&LinkIdentity {
        certificate: pair.0.clone(),
        key: pair.1.clone(),
        authority: identity.authority.clone(),
    })
    .unwrap()
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[tokio::test]
async fn our_two_ends_accept_each_other_in_both_versions() {
    let ours = authority();
    for min in [MinVersion::Tls12, MinVersion::Tls13] {
        let server = server(&ours.ca, ours.ca.certificate_pem(), min);
        let client = near_client(&identity(&ours.ca, &ours.ca)).unwrap();
        let (read, served) = talk(client, server, "podvm-a").await;
        assert_eq!(&read.unwrap(), b"ok");
        served.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_speaks_only_tls_1_2_is_served_unless_forbidden() {
    let ours = authority();
    let pair = ours.ca.issue_client("link").unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificates("authority", ours.ca.certificate_pem()).unwrap().remove(0)).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates("client", &pair.certificate).unwrap(),
            private_key("client", pair.expose_key()).unwrap(),
        )
        .unwrap();
    let client = Arc::new(client);
    let old = server(&ours.ca, ours.ca.certificate_pem(), MinVersion::Tls12);
    assert_eq!(&talk(client.clone(), old, "podvm-a").await.0.unwrap(), b"ok");
    let new = server(&ours.ca, ours.ca.certificate_pem(), MinVersion::Tls13);
    let fault = judge(&talk(client, new, "podvm-a").await.0.unwrap_err());
    assert!(matches!(&fault, Fault::Untrusted(_)), "{fault:?}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_told_so() {
    let (ours, other) = (authority(), authority());
    let server = server(&ours.ca, ours.ca.certificate_pem(), MinVersion::Tls12);
    let client = near_client(&identity(&other.ca, &ours.ca)).unwrap();
    let (read, served) = talk(client, server, "podvm-a").await;
    assert!(served.is_err());
    assert!(matches!(judge(&read.unwrap_err()), Fault::Untrusted(_)));
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_refused() {
    let (ours, other) = (authority(), authority());
    let client = near_client(&identity(&ours.ca, &ours.ca)).unwrap();
    for (from, name) in [(&ours.ca, "podvm-b"), (&other.ca, "podvm-a")] {
        let server = server(from, ours.ca.certificate_pem(), MinVersion::Tls12);
        let (read, _) = talk(client.clone(), server, name).await;
        let fault = judge(&read.unwrap_err());
        assert!(matches!(&fault, Fault::Untrusted(why) if why.contains("certificate")), "{fault:?}");
    }
}

#[tokio::test]
async fn a_stock_daemons_self_signed_client_is_admitted_when_it_is_the_root_given() {
    let ours = authority();
    let base = identity(&ours.ca, &ours.ca);
    let stock = stock_client(2 * YEAR, |_| {});
    let admits_stock = server(&ours.ca, &stock.0, MinVersion::Tls12);
    let (read, served) = talk(with_client(&base, &stock), admits_stock.clone(), "podvm-a").await;
    assert_eq!(&read.unwrap(), b"ok");
    served.unwrap();
    let twin = stock_client(2 * YEAR, |_| {});
    let (read, served) = talk(with_client(&base, &twin), admits_stock, "podvm-a").await;
    assert!(read.is_err() && served.is_err(), "another certificate with the same subject was admitted");
}

#[tokio::test]
async fn a_pinned_certificate_admits_nobody_else_by_signing() {
    let ours = authority();
    let base = identity(&ours.ca, &ours.ca);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let pinned_key = KeyPair::generate().unwrap();
    let pinned = params.self_signed(&pinned_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, pinned_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    let server = server(&ours.ca, &pinned, MinVersion::Tls12);
    let (read, served) = talk(with_client(&base, &(leaf, key.serialize_pem())), server, "podvm-a").await;
    assert!(read.is_err() && served.is_err());
}

#[tokio::test]
async fn a_pinned_certificate_that_has_expired_is_refused_but_may_be_the_clock() {
    let ours = authority();
    let stock = stock_client(Duration::from_secs(60), |_| {});
    let server = server(&ours.ca, &stock.0, MinVersion::Tls12);
    let (read, served) = talk(with_client(&identity(&ours.ca, &ours.ca), &stock), server, "podvm-a").await;
    assert!(served.is_err());
    let fault = judge(&read.unwrap_err());
    assert!(matches!(&fault, Fault::Passing(why) if why.contains("clock")), "{fault:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ours = authority();
    let server = server(&ours.ca, ours.ca.certificate_pem(), MinVersion::Tls12);
    let mut roots = RootCertStore::empty();
    roots.add(certificates("authority", ours.ca.certificate_pem()).unwrap().remove(0)).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (read, served) = talk(Arc::new(client), server, "podvm-a").await;
    assert!(served.is_err());
    assert!(matches!(judge(&read.unwrap_err()), Fault::Untrusted(_)));
}

#[tokio::test]
async fn a_server_certificate_does_not_serve_as_a_clients() {
    let ours = authority();
    let pair = ours.ca.issue_server("podvm-a").unwrap();
    let wrong = (pair.certificate.clone(), pair.expose_key().to_owned());
    let server = server(&ours.ca, ours.ca.certificate_pem(), MinVersion::Tls12);
    let (_, served) = talk(with_client(&identity(&ours.ca, &ours.ca), &wrong), server, "podvm-a").await;
    assert!(served.is_err());
}

#[test]
fn an_authority_that_may_sign_is_not_pinned() {
    let (text, _) = stock_client(YEAR, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let trust = client_trust::ClientTrust::new(certificates("x", &text).unwrap(), &provider()).unwrap();
    assert!(format!("{trust:?}").contains("pinned: []"));
}

#[test]
fn texts_that_are_no_pem_are_named_and_not_shown() {
    let ours = authority();
    let good = identity(&ours.ca, &ours.ca);
    for what in ["authority", "client certificate", "client key"] {
        let mut bad = good.clone();
        match what {
            "authority" => bad.authority = "SECRET".to_owned(),
            "client certificate" => bad.certificate = "SECRET".to_owned(),
            _ => bad.key = "SECRET".to_owned(),
        }
        let error = near_client(&bad).unwrap_err();
        assert!(error.to_string().contains(what) && !format!("{error:?}").contains("SECRET"), "{error:?}");
    }
}

#[test]
fn a_closed_connection_may_be_a_booting_guest() {
    assert!(matches!(judge(&io::ErrorKind::UnexpectedEof.into()), Fault::Passing(_)));
    assert!(matches!(judge(&io::ErrorKind::ConnectionReset.into()), Fault::Passing(_)));
}

#[test]
fn versions_are_read_as_apf_json_writes_them() {
    assert_eq!("VersionTLS12".parse::<MinVersion>().unwrap(), MinVersion::Tls12);
    assert_eq!("VersionTLS13".parse::<MinVersion>().unwrap(), MinVersion::Tls13);
    assert!("VersionTLS11".parse::<MinVersion>().unwrap_err().to_string().contains("VersionTLS11"));
}
