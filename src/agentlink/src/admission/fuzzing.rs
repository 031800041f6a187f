//! A guest's gate and the links at it, on connections without TLS, for `tests/fuzz`.

use std::io;
use std::time::Duration;

use peerpods_podvm::token::{AdmissionToken, GuestKey};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::{Binding, Denied, Gate, claim};

/// How long the gate's token may be used.
pub const VALIDITY: Duration = Duration::from_secs(60);

/// A guest that waits for its link, and its token. Connections and links are told apart by numbers.
pub struct Admission {
    gate: Gate,
    token: AdmissionToken,
}

impl Default for Admission {
    fn default() -> Self {
        let token = AdmissionToken::new(Zeroizing::new([7; AdmissionToken::LENGTH]));
        Self { gate: Gate::new(GuestKey([1; 32]), token.clone(), VALIDITY), token }
    }
}

impl Admission {
    /// What whoever knows the token says first on a connection.
    ///
    /// # Errors
    /// Never: it is written to memory.
    pub async fn claim(&self, connection: u8) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        claim::say(&mut said, &self.token, &binding(connection)).await?;
        Ok(said)
    }

    /// Hears what a link says on a connection, and answers it.
    ///
    /// # Errors
    /// The kind of what was wrong.
    pub async fn hear<S>(&self, peer: &mut S, link: u8, connection: u8) -> Result<(), io::ErrorKind>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let heard = self.gate.hear(peer, GuestKey([link; 32]), &binding(connection)).await;
        heard.map_err(|error| error.kind())
    }

    /// What a link makes of an answer on a connection.
    ///
    /// # Errors
    /// The reason, when it is not to be tried again.
    pub async fn answered<S>(&self, guest: &mut S, connection: u8) -> Result<(), Option<String>>
    where
        S: AsyncRead + Unpin,
    {
        claim::hear(guest, &self.token, &binding(connection)).await.map_err(|denied| match denied {
            Denied::For(reason) => Some(reason),
            Denied::Io(_) => None,
        })
    }

    /// A link comes without a claim; whether the gate lets it in.
    #[must_use]
    pub fn is_open(&self, link: u8) -> bool {
        self.gate.is_open(GuestKey([link; 32]))
    }

    /// Waits until the token's time is up, and wipes it.
    pub async fn expire(&self) {
        self.gate.expire().await;
    }
}

fn binding(connection: u8) -> Binding {
    Binding([connection; 32])
}
