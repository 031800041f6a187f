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
        let (limiter, began) = (self.limiter(action), Instant::now());
        let mut sent = 0;
        loop {
            limiter.turn().await;
            // On the heap: the SDK's futures are large, and callers hold several.
            let error = match Box::pin(send(client.clone())).await {
                Ok(answer) => {
                    limiter.served();
                    return Ok(answer);
                }
                Err(error) => failure::of(operation, error),
            };
            sent += 1;
            match error.kind {
                ErrorKind::Throttled => {
                    let pause = limiter.refused();
                    tracing::warn!(operation, ?pause, %error, "EC2 throttles");
                    if began.elapsed() + pause > THROTTLED_FOR {
                        return Err(error.retry_after(pause));
                    }
                    sent -= 1;
                }
                ErrorKind::Transient
                    if sent < MOST_SENT && error.code.as_deref() != Some(failure::TOKEN_MISMATCH) =>
                {
                    tracing::warn!(operation, %error, "EC2 is asked again");
                    tokio::time::sleep(RESEND * 2_u32.pow(sent)).await;
                }
                _ => {
                    if failure::credentials_were_not_taken(&error) {
                        self.credentials_stale.store(true, Ordering::Relaxed);
                    }
                    return Err(error);
                }
            }
        }
    }
}
