//! The guest's side: who admits it, and what becomes of the token.
//!
//! ```text
//!   waiting ──right claim──▶ claimed ──its link comes without a claim, or time is up──▶ admitted       token wiped
//!      └──────time is up──▶ expired       token wiped: nobody gets in
//! ```

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerpods_podvm::token::{AdmissionToken, GuestKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::{Binding, CLAIM, PROOF, REFUSED, Refusal, Side, WELCOME};

/// Lets in nobody before somebody has shown the token, and nobody by the token after that.
pub struct Gate {
    own: GuestKey,
    until: Instant,
    state: Mutex<State>,
}

enum State {
    Waiting(AdmissionToken),
    /// By whom; that one may ask again, because the answer may have been lost.
    Claimed(AdmissionToken, GuestKey),
    Admitted,
    Expired,
}

impl Gate {
    /// A gate of the guest with the key `own`, which `token` opens within `validity` from now.
    #[must_use]
    pub fn new(own: GuestKey, token: AdmissionToken, validity: Duration) -> Self {
        // A validity beyond what a clock can show is as good as the longest there is.
        let until = Instant::now() + validity.min(Duration::from_secs(30 * 86_400));
        Self { own, until, state: Mutex::new(State::Waiting(token)) }
    }

    pub(crate) fn own(&self) -> GuestKey {
        self.own
    }

    /// Hears a claim and answers it; Ok when it was right.
    ///
    /// # Errors
    /// Says what was wrong. `PermissionDenied`: the peer was told so, and is to be let go gently.
    pub(crate) async fn hear<S>(&self, peer: &mut S, link: GuestKey, binding: &Binding) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut claim = [0; 1 + PROOF];
        peer.read_exact(&mut claim).await?;
        let [CLAIM, proof @ ..] = &claim else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it claims nothing"));
        };
        let judged = self.judge(link, binding, proof, Instant::now());
        match judged {
            Ok(answer) => {
                peer.write_all(&answer).await?;
                peer.flush().await
            }
            Err(refusal) => {
                peer.write_all(&[REFUSED, refusal.code()]).await?;
                peer.flush().await?;
                Err(io::Error::new(io::ErrorKind::PermissionDenied, refused(refusal)))
            }
        }
    }

    /// Whether `link`, which makes no claim, is let in: one that knows us by our key, because we were admitted. The one that claimed us
    /// shows by it that our answer arrived.
    pub(crate) fn is_open(&self, link: GuestKey) -> bool {
        let mut state = self.state();
        if matches!(&*state, State::Claimed(_, by) if *by == link) {
            *state = State::Admitted;
        }
        matches!(*state, State::Claimed(..) | State::Admitted)
    }

    /// Wipes the token when its time is up.
    pub(crate) async fn expire(&self) {
        sleep_until(self.until).await;
        let mut state = self.state();
        *state = match &*state {
            State::Waiting(_) | State::Expired => {
                tracing::error!("nobody has admitted this guest in time; the token is void");
                State::Expired
            }
            State::Claimed(..) | State::Admitted => State::Admitted,
        };
    }

    fn judge(
        &self,
        link: GuestKey,
        binding: &Binding,
        proof: &[u8],
        now: Instant,
    ) -> Result<[u8; 1 + PROOF], Refusal> {
        let mut state = self.state();
        let token = match &*state {
            State::Waiting(token) => token,
            State::Claimed(token, by) if *by == link => token,
            // Only who shows the token is a reason for an alarm; another one's may have come to a wrong address.
            State::Claimed(token, _) if binding.is_proven(token, Side::Link, proof) => {
                return Err(Refusal::Spent);
            }
            State::Claimed(..) => return Err(Refusal::Wrong),
            State::Admitted => return Err(Refusal::Taken),
            State::Expired => return Err(Refusal::Expired),
        };
        if now >= self.until {
            return Err(Refusal::Expired);
        }
        if !binding.is_proven(token, Side::Link, proof) {
            return Err(Refusal::Wrong);
        }
        let mut answer = [WELCOME; 1 + PROOF];
        answer[1..].copy_from_slice(binding.proof(token, Side::Guest).as_ref());
        *state = State::Claimed(token.clone(), link);
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Spent => {
            "ALARM: somebody came with the token after it was spent; either this claim or the one before was not our worker's"
        }
        Refusal::Taken => {
            "ALARM, unless it was meant for another VM at this address: somebody claims this guest, which is admitted and has wiped its token"
        }
        Refusal::Expired => "the token has expired",
        Refusal::Wrong => "it does not know the token",
    }
}
