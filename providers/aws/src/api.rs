//! The one door to EC2: every call waits for its turn, is repeated when it was throttled or got no answer, and comes back with an error
//! of the service's kinds. Nothing else sends.
//!
//! The SDK's own retries are off: they would pass by the shared limiter, and count throttling as failure.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use peerpods_provider::{ErrorKind, ProviderError};
use tokio::time::Instant;

use crate::failure;
use crate::limiter::{self, Limiter};

/// How long a call goes on being throttled before its caller is told: as long as kubelet waits for a pod's sandbox.
const THROTTLED_FOR: Duration = Duration::from_secs(240);
/// How often a call without an answer is sent.
const MOST_SENT: u32 = 3;
/// The pause before it is sent again; doubles.
const RESEND: Duration = Duration::from_millis(200);

/// Which of EC2's buckets a call draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Run,
    Terminate,
    Describe,
}

/// EC2, with our place in its lines.
#[derive(Debug)]
pub(crate) struct Api {
    run: Limiter,
    terminate: Limiter,
    describe: Limiter,
    /// Credentials were not taken since somebody last asked.
    credentials_stale: AtomicBool,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self {
            run: Limiter::new(limiter::RUN),
            terminate: Limiter::new(limiter::TERMINATE),
            describe: Limiter::new(limiter::DESCRIBE),
            credentials_stale: AtomicBool::new(false),
        }
    }

    /// Whether EC2 did not take the credentials since this was asked last: whoever asks reads them anew.
    pub(crate) fn takes_stale_credentials(&self) -> bool {
        self.credentials_stale.swap(false, Ordering::Relaxed)
    }

    fn limiter(&self, action: Action) -> &Limiter {
        match action {
            Action::Run => &self.run,
            Action::Terminate => &self.terminate,
            Action::Describe => &self.describe,
        }
    }

    /// Sends a call that may be repeated without doing its work twice. `operation` says what is tried, for error texts.
    ///
    /// # Cancel safety
    /// Dropped, nothing more is sent; a request that is out may still do its work.
    pub(crate) async fn call<T, E, F>(
        &self,
        client: &Client,
        action: Action,
        operation: &str,
        mut send: impl FnMut(Client) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let limiter = self.limiter(action);
        let mut trying = Trying { operation, began: Instant::now(), unanswered: 0 };
        loop {
            limiter.turn().await;
            // On the heap: the SDK's futures are large, and callers hold several.
            match Box::pin(send(client.clone())).await {
                Ok(answer) => {
                    limiter.served();
                    return Ok(answer);
                }
                Err(error) => self.again_after(failure::of(operation, error), limiter, &mut trying).await?,
            }
        }
    }

    /// Returns when the call is to be sent again.
    ///
    /// # Errors
    /// The failure itself, when it is not.
    async fn again_after(
        &self,
        error: ProviderError,
        limiter: &Limiter,
        trying: &mut Trying<'_>,
    ) -> Result<(), ProviderError> {
        if failure::credentials_were_not_taken(&error) {
            self.credentials_stale.store(true, Ordering::Relaxed);
        }
        let unknown =
            error.kind == ErrorKind::Transient && error.code.as_deref() != Some(failure::TOKEN_MISMATCH);
        if error.kind == ErrorKind::Throttled {
            let pause = limiter.refused();
            tracing::warn!(operation = trying.operation, ?pause, %error, "EC2 throttles");
            // The limiter holds the next turn back for as long.
            return match trying.began.elapsed() + pause > THROTTLED_FOR {
                true => Err(error.retry_after(pause)),
                false => Ok(()),
            };
        }
        trying.unanswered += 1;
        if !unknown || trying.unanswered >= MOST_SENT {
            return Err(error);
        }
        tracing::warn!(operation = trying.operation, %error, "EC2 is asked again");
        tokio::time::sleep(RESEND * 2_u32.pow(trying.unanswered)).await;
        Ok(())
    }
}

/// How a call has fared so far.
struct Trying<'a> {
    operation: &'a str,
    began: Instant,
    unanswered: u32,
}
