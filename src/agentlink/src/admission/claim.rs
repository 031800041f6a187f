//! The link's side: what it says first, and what it makes of the answer.

use std::io;

use peerpods_podvm::token::AdmissionToken;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Binding, CLAIM, PROOF, REFUSED, Refusal, Side, WELCOME};

/// Why the guest is not the one that was made, or does not take us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// The connection failed; it may be another time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not to be tried again.
    #[error("{0}")]
    For(String),
}

/// Claims the guest. The answer is read later, by [`hear`].
pub(crate) async fn say<S>(guest: &mut S, token: &AdmissionToken, binding: &Binding) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let mut claim = [CLAIM; 1 + PROOF];
    claim[1..].copy_from_slice(binding.proof(token, Side::Link).as_ref());
    guest.write_all(&claim).await
}

/// Reads the answer to a claim; Ok when the guest has proved to know the token.
///
/// # Errors
/// [`Denied::For`] when it refuses, or answers something else.
pub(crate) async fn hear<S>(guest: &mut S, token: &AdmissionToken, binding: &Binding) -> Result<(), Denied>
where
    S: AsyncRead + Unpin,
{
    match guest.read_u8().await? {
        WELCOME => {
            let mut proof = [0; PROOF];
            guest.read_exact(&mut proof).await?;
            if binding.is_proven(token, Side::Guest, &proof) {
                Ok(())
            } else {
                Err(Denied::For(
                    "it does not know the token that the VM was given: somebody else answers at its address"
                        .to_owned(),
                ))
            }
        }
        REFUSED => Err(Denied::For(Refusal::told(guest.read_u8().await?))),
        _ => Err(Denied::For("its answer to our claim is none".to_owned())),
    }
}
