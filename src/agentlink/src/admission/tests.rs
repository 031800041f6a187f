use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::ca::ClusterCa;
use crate::link::LinkIdentity;
use crate::tls::{far_with_own_key, key_of, key_shown_by, near_admitting};

const LONG: Duration = Duration::from_secs(60);

fn token(byte: u8) -> AdmissionToken {
    AdmissionToken::new(Zeroizing::new([byte; 32]))
}

/// A cluster with one guest that made its key.
struct Bed {
    ca: ClusterCa,
    server: Arc<rustls::ServerConfig>,
    own: GuestKey,
    _dir: tempfile::TempDir,
}

/// Both ends of one TLS connection, with what each takes for its binding.
struct Connection {
    near: client::TlsStream<DuplexStream>,
    far: server::TlsStream<DuplexStream>,
    near_binding: Binding,
    far_binding: Binding,
    link: GuestKey,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::load_or_create(dir.path()).unwrap();
        let (server, own) = far_with_own_key(ca.certificate_pem()).unwrap();
        Self { ca, server, own, _dir: dir }
    }

    fn identity(&self) -> LinkIdentity {
        let pair = self.ca.issue_client("link").unwrap();
        let (certificate, key) = (pair.certificate.clone(), pair.expose_key().to_owned());
        LinkIdentity { certificate, key, authority: self.ca.certificate_pem().to_owned() }
    }

    async fn connect(&self) -> Connection {
        connect(&self.identity(), &self.server).await
    }
}

async fn connect(identity: &LinkIdentity, server: &Arc<rustls::ServerConfig>) -> Connection {
    let (near, far) = duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(near_admitting(identity).unwrap()));
    let accepted = TlsAcceptor::from(server.clone());
    let name = ServerName::try_from("podvm-a").unwrap();
    let (near, far) = tokio::join!(connector.connect(name, near), accepted.accept(far));
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(PROTOCOL));
    let guest = key_of(&near.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    let link = key_of(&far.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(link, key_shown_by(identity).unwrap());
    Connection {
        near_binding: Binding::of(near.get_ref().1, guest, link).unwrap(),
        far_binding: Binding::of(far.get_ref().1, guest, link).unwrap(),
        near,
        far,
        link,
    }
}

impl Connection {
    /// A claim with this token; what each side makes of it.
    async fn claim(&mut self, gate: &Gate, token: &AdmissionToken) -> (Result<(), Denied>, io::Result<()>) {
        let near = async {
            say(&mut self.near, token, &self.near_binding).await?;
            self.near.flush().await?;
            hear(&mut self.near, token, &self.near_binding).await
        };
        tokio::join!(near, gate.hear(&mut self.far, self.link, &self.far_binding))
    }
}

fn reason(denied: Result<(), Denied>) -> String {
    match denied {
        Err(Denied::For(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_token_admits_once_and_only_the_one_who_used_it_may_ask_again() {
    let bed = Bed::new();
    let gate = Gate::new(bed.own, token(1), LONG);
    let ours = bed.identity();
    let link = key_shown_by(&ours).unwrap();
    assert!(!gate.is_open(link), "nobody has shown the token");
    let (told, heard) = connect(&ours, &bed.server).await.claim(&gate, &token(1)).await;
    told.unwrap();
    heard.unwrap();
    // The answer may have been lost: the same link on another connection.
    connect(&ours, &bed.server).await.claim(&gate, &token(1)).await.0.unwrap();
    // Somebody else with the token, and a certificate of the cluster.
    let (told, heard) = bed.connect().await.claim(&gate, &token(1)).await;
    assert!(reason(told).contains("spent"));
    assert!(heard.unwrap_err().to_string().contains("ALARM"));
    // A daemon before this one came to another VM's old address: no reason for an alarm.
    let (told, heard) = bed.connect().await.claim(&gate, &token(2)).await;
    assert!(reason(told).contains("another token"));
    assert!(!heard.unwrap_err().to_string().contains("ALARM"));
    // Others with a certificate are let in, and change nothing about who may ask again.
    assert!(gate.is_open(GuestKey([9; 32])));
    connect(&ours, &bed.server).await.claim(&gate, &token(1)).await.0.unwrap();
    assert!(gate.is_open(link), "a link that knows the guest by its key");
    // That shows that our answer arrived, so the token is gone, for the first user as well.
    assert!(reason(connect(&ours, &bed.server).await.claim(&gate, &token(1)).await.0).contains("spent"));
}

#[tokio::test]
async fn who_does_not_know_the_token_is_refused_and_the_token_stays_good() {
    let bed = Bed::new();
    let gate = Gate::new(bed.own, token(1), LONG);
    let (told, heard) = bed.connect().await.claim(&gate, &token(2)).await;
    assert!(reason(told).contains("another token"));
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert!(!gate.is_open(bed.own));
    bed.connect().await.claim(&gate, &token(1)).await.0.unwrap();
}

#[tokio::test]
async fn a_guest_that_does_not_know_the_token_is_not_believed() {
    let bed = Bed::new();
    let mut connection = bed.connect().await;
    // It answers whatever comes, first by a proof of its own making, then by our own words.
    for reflect in [false, true] {
        let near = async {
            say(&mut connection.near, &token(1), &connection.near_binding).await?;
            connection.near.flush().await?;
            hear(&mut connection.near, &token(1), &connection.near_binding).await
        };
        let impostor = async {
            let mut claim = [0; 1 + PROOF];
            connection.far.read_exact(&mut claim).await.unwrap();
            claim[0] = WELCOME;
            if !reflect {
                claim[1..].copy_from_slice(connection.far_binding.proof(&token(2), Side::Guest).as_ref());
            }
            connection.far.write_all(&claim).await.unwrap();
            connection.far.flush().await.unwrap();
        };
        assert!(reason(tokio::join!(near, impostor).0).contains("does not know the token"), "{reflect}");
    }
}

#[tokio::test]
async fn who_sits_between_two_connections_can_use_the_proofs_of_neither() {
    let bed = Bed::new();
    let gate = Gate::new(bed.own, token(1), LONG);
    // Even with the cluster's client certificate towards the guest, which it does not have as a rule.
    let (fake, _) = far_with_own_key(bed.ca.certificate_pem()).unwrap();
    let identity = bed.identity();
    let (mut to_link, mut to_guest) =
        (connect(&identity, &fake).await, connect(&identity, &bed.server).await);
    say(&mut to_link.near, &token(1), &to_link.near_binding).await.unwrap();
    to_link.near.flush().await.unwrap();
    let mut claim = [0; 1 + PROOF];
    to_link.far.read_exact(&mut claim).await.unwrap();
    to_guest.near.write_all(&claim).await.unwrap();
    to_guest.near.flush().await.unwrap();
    let heard = gate.hear(&mut to_guest.far, to_guest.link, &to_guest.far_binding).await;
    assert_eq!(heard.unwrap_err().to_string(), "it does not know the token");
    // The other way: a proof the guest gave on its connection.
    let proof = to_guest.far_binding.proof(&token(1), Side::Guest);
    to_link.far.write_all(&[&[WELCOME][..], proof.as_ref()].concat()).await.unwrap();
    to_link.far.flush().await.unwrap();
    let told = hear(&mut to_link.near, &token(1), &to_link.near_binding).await;
    assert!(reason(told).contains("does not know the token"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_used_in_time_is_void_and_one_that_was_used_is_wiped() {
    let bed = Bed::new();
    let (unused, used) =
        (Gate::new(bed.own, token(1), LONG), Gate::new(bed.own, token(1), Duration::from_secs(9)));
    let ours = bed.identity();
    connect(&ours, &bed.server).await.claim(&used, &token(1)).await.0.unwrap();
    tokio::join!(unused.expire(), used.expire());
    assert!(reason(bed.connect().await.claim(&unused, &token(1)).await.0).contains("expired"));
    assert!(!unused.is_open(bed.own));
    assert!(reason(connect(&ours, &bed.server).await.claim(&used, &token(1)).await.0).contains("spent"));
    assert!(used.is_open(bed.own));
}

#[tokio::test]
async fn what_is_no_claim_is_closed_without_a_word() {
    let bed = Bed::new();
    let gate = Gate::new(bed.own, token(1), LONG);
    let mut connection = bed.connect().await;
    connection.near.write_all(&[0; 1 + PROOF]).await.unwrap();
    connection.near.flush().await.unwrap();
    let heard = gate.hear(&mut connection.far, connection.link, &connection.far_binding).await;
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn tokens_differ() {
    assert_ne!(new_token().unwrap(), new_token().unwrap());
}
