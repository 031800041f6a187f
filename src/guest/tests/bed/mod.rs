//! What the tests share: a worker's keys and message, and its question to the agent over a real TLS connection.

use std::io;

use peerpods_agentlink::LinkIdentity;
use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::tls::near_client;
use peerpods_podvm::guest_config::{ApfConfig, SecretText};
use peerpods_podvm::network::PodNetwork;
use peerpods_podvm::user_data::{APF_PATH, CloudConfig, File};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The VM's name, in its certificate.
const NAME: &str = "podvm-web-01234567";

/// A cluster's authority and what it signed for one VM.
pub(crate) struct Worker {
    user_data: String,
    identity: LinkIdentity,
}

impl Worker {
    /// A worker with new keys, and the pod network it tells the VM.
    pub(crate) fn new(network: PodNetwork) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::load_or_create(dir.path()).unwrap();
        let (server, client) = (ca.issue_server(NAME).unwrap(), ca.issue_client("worker").unwrap());
        let config = ApfConfig {
            pod_network: Some(network),
            pod_name: "web".to_owned(),
            pod_namespace: "default".to_owned(),
            tls_server_key: Some(SecretText::new(server.expose_key())),
            tls_server_cert: Some(server.certificate.clone()),
            tls_client_ca: Some(ca.certificate_pem().to_owned()),
            ..ApfConfig::default()
        };
        Self {
            user_data: CloudConfig::new(vec![File::new(APF_PATH, config.to_json())]).render().unwrap(),
            identity: LinkIdentity {
                certificate: client.certificate.clone(),
                key: client.expose_key().to_owned(),
                authority: ca.certificate_pem().to_owned(),
            },
        }
    }

    /// The message to the VM.
    pub(crate) fn user_data(&self) -> &str {
        &self.user_data
    }

    /// TLS over a connection.
    pub(crate) async fn secure(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(near_client(&self.identity).unwrap());
        connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await
    }
}

/// One `grpc.Health/Check` as bytes on the wire, and the answer SERVING.
pub(crate) async fn serves(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut request = vec![0x0a, 11];
    request.extend_from_slice(b"grpc.Health");
    request.extend_from_slice(&[0x12, 5]);
    request.extend_from_slice(b"Check");
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &[0, 0, 0, 1, 1, 0], &request].concat()).await?;
    stream.flush().await?;
    let mut header = [0; 10];
    stream.read_exact(&mut header).await?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    // A Response whose payload is a HealthCheckResponse with status 1.
    if header[8] == 2 && answer.windows(4).any(|bytes| bytes == [0x12, 2, 8, 1]) {
        return Ok(());
    }
    Err(io::Error::other(format!("answered {answer:02x?}")))
}
