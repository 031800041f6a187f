//! Admitting a guest that made its own key: by a token that works once.
//!
//! In the stock form the VM's private key lies in user data, for as long as the VM lives, and whoever reads that can be the VM. In this
//! form user data holds a random token instead. The guest makes a key in memory and never says it to anybody; the token proves, once,
//! that the guest at the other end of *this* TLS connection is the one that was born with it. From then on the link knows the guest by
//! its key ([`GuestKey`]), and the token is wiped at both ends.
//!
//! ```text
//!   TLS 1.3, ALPN "peerpods-admission/1"; the link shows its certificate of the cluster's authority, which the guest checks before
//!   anything else; the guest's certificate is self-signed, and the link checks only that the guest has its key
//!   link → guest   CLAIM    1, proof (32 bytes)     with the handshake's last flight; the agent's bytes follow at once
//!   guest → link   WELCOME  2, proof (32 bytes)     the agent's bytes follow
//!   guest → link   REFUSED  3, reason (1 byte)      1 spent, 2 expired, 3 another token; the connection closes
//!
//!   binding = TLS exporter("EXPORTER-peerpods-admission/1", context: guest's key ‖ link's key, 32 bytes)     RFC 8446 §7.5
//!   proof   = HMAC-SHA256(token, "link" or "guest" ‖ binding)
//!   a key   = SHA-256(SubjectPublicKeyInfo)
//! ```
//!
//! Nobody waits a round trip for it: the claim travels with the first question for the agent's health.
//!
//! # Why that is enough
//!
//! - **In the middle.** Whoever ends the link's TLS and begins its own towards the guest has two connections with two exporters: no
//!   proof of one is good on the other, and without the token none can be made. A proof tells nothing about 256 random bits.
//! - **Replay, reflection.** A proof belongs to one handshake, and the two sides prove different words.
//! - **First use.** The guest hears whoever comes first with the cluster's client certificate *and* the token, and remembers that
//!   client's key: only that one may ask again (an answer may be lost on the way), until that one comes without a claim, which
//!   shows that it heard the answer, or time is up. Anybody else with the token is refused as `spent` and told in the guest's log.
//! - **What is left in user data** afterwards opens nothing: the guest refuses it, the link is pinned to a key, the daemon has dropped it.
//!   A guest that is booted anew from the same user data makes another key, which no link accepts.
//! - **Before first use** the token is as good as its keeper. Who steals it *and* holds a client certificate can be admitted instead of us:
//!   then our claim is refused as spent, and the start fails with that. Who steals it *and* answers at the VM's address is taken for the
//!   VM; no secret in user data can prevent that, and here it takes the seconds of one start, not the life of the VM.
//! - **Time.** The daemon drops the token when the start ends either way. The guest counts its validity from when it read it, by its
//!   monotonic clock, because its wall clock may be wrong.
//!
//! The guest's key lives as long as its process. The link's knowledge of it is public and is kept by the daemon as well, so a link or
//! a daemon that is started anew finds the guest again.

mod claim;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gate;

use std::io;

use aws_lc_rs::hmac;
use peerpods_podvm::token::{AdmissionToken, GuestKey};
use rustls::ConnectionCommon;
use rustls::crypto::aws_lc_rs as crypto;
use zeroize::Zeroizing;

pub(crate) use claim::{Denied, hear, say};
pub use gate::Gate;

/// The protocol's name in ALPN.
pub(crate) const PROTOCOL: &[u8] = b"peerpods-admission/1";

const EXPORTER: &[u8] = b"EXPORTER-peerpods-admission/1";
const PROOF: usize = 32;
const CLAIM: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;

/// A new token.
///
/// # Errors
/// When the system has no random numbers.
pub fn new_token() -> io::Result<AdmissionToken> {
    let mut bytes = Zeroizing::new([0; AdmissionToken::LENGTH]);
    let random = crypto::default_provider().secure_random;
    random.fill(&mut *bytes).map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(AdmissionToken::new(bytes))
}

/// Who proves to know the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Link,
    Guest,
}

impl Side {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Link => b"link",
            Self::Guest => b"guest",
        }
    }
}

/// What ties a proof to one TLS connection between these two keys.
#[derive(Clone, Copy)]
pub(crate) struct Binding([u8; 32]);

impl Binding {
    /// # Errors
    /// When the handshake is not over.
    pub(crate) fn of<D>(tls: &ConnectionCommon<D>, guest: GuestKey, link: GuestKey) -> io::Result<Self> {
        let context = [guest.0, link.0].concat();
        tls.export_keying_material([0; 32], EXPORTER, Some(&context)).map(Self).map_err(io::Error::other)
    }

    fn proof(&self, token: &AdmissionToken, side: Side) -> hmac::Tag {
        hmac::sign(&key(token), &[side.word(), &self.0].concat())
    }

    /// Takes the same time whatever is wrong with the proof.
    fn is_proven(&self, token: &AdmissionToken, side: Side, proof: &[u8]) -> bool {
        hmac::verify(&key(token), &[side.word(), &self.0].concat(), proof).is_ok()
    }
}

fn key(token: &AdmissionToken) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.expose())
}

/// Why a guest admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It is right, and somebody else had used it.
    Spent,
    /// Somebody was admitted; whether it is right cannot be told any more.
    Taken,
    Expired,
    Wrong,
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Spent | Self::Taken => 1,
            Self::Expired => 2,
            Self::Wrong => 3,
        }
    }

    /// What a link's log and StartVM's error say of it.
    fn told(code: u8) -> String {
        match code {
            1 => "its token is spent: somebody else was admitted before us. Others have read this VM's user data, or it is another VM \
                  than the one that was made; the guest's console says who came"
                .to_owned(),
            2 => "its token has expired: it could be used for as long as a start may take".to_owned(),
            3 => "it was given another token: it is another VM than the one that was made".to_owned(),
            other => format!("it refused to be admitted, with the reason {other}, which is not known here"),
        }
    }
}

#[cfg(test)]
mod tests;
