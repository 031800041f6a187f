//! A guest that made its own key: admitted once by its token, known by its key from then on. The real link process, real TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerpods_agentlink::admission::{Gate, new_token};
use peerpods_agentlink::far::FarConfig;
use peerpods_agentlink::tls::far_with_own_key;
use peerpods_agentlink::{GuestTrust, Link, LinkError, LinkTarget};
use peerpods_podvm::token::{AdmissionToken, GuestKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::support::{Guest, Sandbox, healthy, identity};

const LONG: Duration = Duration::from_secs(120);

/// A guest whose gate this token opens.
async fn guest(token: &AdmissionToken) -> Guest {
    let mut guest = Guest::off().await;
    let adjust = own_key(&guest, token);
    guest.serve(adjust).await;
    guest
}

fn own_key(guest: &Guest, token: &AdmissionToken) -> impl FnOnce(&mut FarConfig) + use<> {
    let (tls, own) = far_with_own_key(guest.ca.certificate_pem()).unwrap();
    let gate = Gate::new(own, token.clone(), LONG);
    move |config| {
        config.tls = tls;
        config.gate = Some(Arc::new(gate));
    }
}

fn by_token(guest: &Guest, token: &AdmissionToken) -> LinkTarget {
    LinkTarget { guest: GuestTrust::Token(token.clone()), ..guest.target() }
}

fn by_key(guest: &Guest, key: GuestKey) -> LinkTarget {
    LinkTarget { guest: GuestTrust::Key(key), ..guest.target() }
}

async fn opened() -> Sandbox {
    let sandbox = Sandbox::new();
    assert!(sandbox.links.open(&sandbox.spec).await.unwrap().admits_by_token);
    sandbox
}

fn refused(error: LinkError) -> String {
    match error {
        LinkError::Untrusted { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_admitted_and_its_key_carries_every_later_connection() {
    let token = new_token().unwrap();
    let guest = guest(&token).await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let connected = sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap();
    let key = connected.guest_key.unwrap();
    for _ in 0..2 {
        healthy(&sandbox.shim().await).await.unwrap();
    }
    // A daemon whose answer was lost asks again; one that came back knows the key; one before this knows of no keys.
    for target in [by_token(&guest, &token), by_key(&guest, key), guest.target()] {
        let again = sandbox.links.connect(&sandbox.spec, &target).await.unwrap();
        assert_eq!((again.guest_key, again.agent_after), (Some(key), connected.agent_after));
    }
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_started_anew_finds_the_guest_by_its_key_and_not_by_the_token() {
    let token = new_token().unwrap();
    let guest = guest(&token).await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let key =
        sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap().guest_key.unwrap();
    healthy(&sandbox.shim().await).await.unwrap();
    sandbox.links.close(&sandbox.spec).await.unwrap();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let spent = sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap_err();
    assert!(refused(spent).contains("spent"));
    let other = sandbox.links.connect(&sandbox.spec, &by_key(&guest, GuestKey([7; 32]))).await.unwrap_err();
    assert!(refused(other).contains("another key"));
    let known = sandbox.links.connect(&sandbox.spec, &by_key(&guest, key)).await.unwrap();
    assert_eq!(known.guest_key, Some(key));
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_user_data_is_worth_nothing_after_its_use() {
    let token = new_token().unwrap();
    let (guest, elsewhere) = (guest(&token).await, Guest::off().await);
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap();
    // A thief with the token and a certificate of the cluster.
    let thief = opened().await;
    let spent = thief.links.connect(&thief.spec, &by_token(&guest, &token)).await.unwrap_err();
    assert!(refused(spent).contains("spent"));
    // One with a certificate of his own is not even heard.
    let mut target = by_token(&guest, &token);
    target.identity = identity(&elsewhere.ca, &guest.ca);
    let stranger = thief.links.connect(&thief.spec, &target).await.unwrap_err();
    assert!(refused(stranger).contains("alert"));
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_is_not_heard_before_the_first_use_either() {
    let token = new_token().unwrap();
    let guest = guest(&token).await;
    let _agent = guest.agent().await;
    let (thief, ours) = (opened().await, opened().await);
    let elsewhere = Guest::off().await;
    let mut target = by_token(&guest, &token);
    target.identity = identity(&elsewhere.ca, &guest.ca);
    let stranger = thief.links.connect(&thief.spec, &target).await.unwrap_err();
    assert!(refused(stranger).contains("alert"));
    assert!(asks_without_a_certificate(guest.address).await.is_err());
    // And the token is as good as before.
    ours.links.connect(&ours.spec, &by_token(&guest, &token)).await.unwrap();
    assert!(asks_without_a_certificate(guest.address).await.is_err());
}

/// A client of TLS without a certificate, which believes any server: reads the first byte of an answer to whatever it says.
async fn asks_without_a_certificate(address: SocketAddr) -> std::io::Result<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(schemes)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"peerpods-admission/1".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = "podvm".try_into().unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.write_all(&[1; 33]).await?;
    tls.flush().await?;
    tls.read_u8().await
}

/// Believes everything.
#[derive(Debug)]
struct Anybody(Vec<rustls::SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_who_was_faster_makes_the_start_fail_and_say_so() {
    let token = new_token().unwrap();
    let guest = guest(&token).await;
    let _agent = guest.agent().await;
    let (thief, ours) = (opened().await, opened().await);
    thief.links.connect(&thief.spec, &by_token(&guest, &token)).await.unwrap();
    let failed = ours.links.connect(&ours.spec, &by_token(&guest, &token)).await.unwrap_err();
    let reason = refused(failed);
    assert!(reason.contains("somebody else was admitted before us"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_not_given_the_token_is_refused() {
    let (token, another) = (new_token().unwrap(), new_token().unwrap());
    let guest = guest(&another).await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let error = sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap_err();
    assert!(refused(error).contains("another token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_the_address_later_gets_nothing_of_the_shim() {
    let token = new_token().unwrap();
    let mut guest = guest(&token).await;
    let agent = guest.agent().await;
    let sandbox = opened().await;
    let key =
        sandbox.links.connect(&sandbox.spec, &by_token(&guest, &token)).await.unwrap().guest_key.unwrap();
    guest.shutdown.cancel();
    guest.served.take().unwrap().await.unwrap();
    // With the same token and another key: a guest that was booted anew, or a thief's.
    guest.shutdown = CancellationToken::new();
    let adjust = own_key(&guest, &token);
    guest.serve(adjust).await;
    let asked = agent.asked.connections.load(std::sync::atomic::Ordering::SeqCst);
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(b"x").await.unwrap();
    assert_eq!(
        timeout(LONG, shim.read(&mut [0; 1])).await.unwrap().unwrap_or(0),
        0,
        "the shim got an answer"
    );
    let error = sandbox.links.connect(&sandbox.spec, &by_key(&guest, key)).await.unwrap_err();
    assert!(refused(error).contains("another key"));
    assert_eq!(agent.asked.connections.load(std::sync::atomic::Ordering::SeqCst), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_the_stock_form_is_not_taken_for_one_with_a_token() {
    let token = new_token().unwrap();
    for guest in [Guest::on().await, Guest::stock().await] {
        let _agent = guest.agent().await;
        let sandbox = opened().await;
        let target = LinkTarget { deadline: Duration::from_secs(4), ..by_token(&guest, &token) };
        let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err().to_string();
        assert!(error.contains("guest-identity"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_does_not_lock_the_guest() {
    let token = new_token().unwrap();
    let guest = guest(&token).await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let (address, lost) = losing_the_first_answer(guest.address).await;
    let target = LinkTarget { address, ..by_token(&guest, &token) };
    let connected = sandbox.links.connect(&sandbox.spec, &target).await.unwrap();
    assert!(connected.attempts > 1 && lost.load(Ordering::SeqCst), "nothing was lost");
    healthy(&sandbox.shim().await).await.unwrap();
}

/// A way to the guest on which the first connection breaks after the guest has read the claim, and before its answer arrives. Tells
/// whether there was one.
async fn losing_the_first_answer(guest: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let lost = Arc::<AtomicBool>::default();
    let told = lost.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(guest).await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        // The hello, the guest's flight, and then whatever the link says, but nothing back.
        for _ in 0..2 {
            let read = near.read(&mut buffer).await.unwrap();
            far.write_all(&buffer[..read]).await.unwrap();
            if read < 1000 && buffer[0] == 0x16 {
                let read = far.read(&mut buffer).await.unwrap();
                near.write_all(&buffer[..read]).await.unwrap();
            }
        }
        let (mut far_reads, mut far_writes) = far.split();
        let withheld = async {
            let read = far_reads.read(&mut buffer).await.unwrap_or(0);
            told.fetch_or(read > 0, Ordering::SeqCst);
        };
        let more = tokio::io::copy(&mut near, &mut far_writes);
        let _ = timeout(Duration::from_secs(1), async { tokio::join!(more, withheld) }).await;
        drop((near, far));
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(guest).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (address, lost)
}
