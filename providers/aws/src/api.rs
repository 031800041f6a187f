//! The one door to EC2: every call waits for its turn, is repeated when it was throttled or got no answer, and comes back with an error
//! of the service's kinds. Nothing else sends.
//!
//! A call that is repeated keeps its place in the line. Whoever decides what to ask for only when the turn has come takes the place
//! itself ([`Api::line`]) and calls from there.
//!
//! The SDK's own retries are off: they would pass by the shared limiter, and count throttling as failure.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use peerpods_provider::{ErrorKind, ProviderError};

use crate::bucket::{self, Rate};
use crate::failure;
use crate::limiter::{Limiter, Place};

/// How long a call goes on being throttled, from its first turn on, before its caller is told: as long as kubelet waits for a pod's
/// sandbox.
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
    /// `run` is the rate of `RunInstances`, which AWS raises for those who ask; the others are the published ones.
    pub(crate) fn new(run: Rate) -> Self {
        Self {
            run: Limiter::new(run),
            terminate: Limiter::new(bucket::TERMINATE),
            describe: Limiter::new(bucket::DESCRIBE),
            credentials_stale: AtomicBool::new(false),
        }
    }

    /// Whether EC2 did not take the credentials since this was asked last: whoever asks reads them anew.
    pub(crate) fn takes_stale_credentials(&self) -> bool {
        self.credentials_stale.swap(false, Ordering::Relaxed)
    }

    /// A place at the end of the line for an action.
    pub(crate) fn line(&self, action: Action) -> Place<'_> {
        match action {
            Action::Run => self.run.join(),
            Action::Terminate => self.terminate.join(),
            Action::Describe => self.describe.join(),
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
        send: impl FnMut(Client) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        self.call_from(&mut self.line(action), client, operation, send).await
    }

    /// The same from a place in the line; its turn is used when it has one.
    pub(crate) async fn call_from<T, E, F>(
        &self,
        place: &mut Place<'_>,
        client: &Client,
        operation: &str,
        mut send: impl FnMut(Client) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let mut unanswered = 0;
        loop {
            place.turn().await;
            place.used();
            // On the heap: the SDK's futures are large, and callers hold several.
            match Box::pin(send(client.clone())).await {
                Ok(answer) => {
                    place.served();
                    return Ok(answer);
                }
                Err(error) => {
                    self.again_after(failure::of(operation, error), place, &mut unanswered).await?;
                }
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
        place: &Place<'_>,
        unanswered: &mut u32,
    ) -> Result<(), ProviderError> {
        if failure::credentials_were_not_taken(&error) {
            self.credentials_stale.store(true, Ordering::Relaxed);
        }
        if error.kind == ErrorKind::Throttled {
            let pause = place.refused();
            tracing::warn!(?pause, %error, "EC2 throttles");
            // The limiter holds the next turn back for as long.
            return match place.since_first_turn() + pause > THROTTLED_FOR {
                true => Err(error.retry_after(pause)),
                false => Ok(()),
            };
        }
        let unknown =
            error.kind == ErrorKind::Transient && error.code.as_deref() != Some(failure::TOKEN_MISMATCH);
        *unanswered += 1;
        if !unknown || *unanswered >= MOST_SENT {
            return Err(error);
        }
        tracing::warn!(%error, "EC2 is asked again");
        tokio::time::sleep(RESEND * 2_u32.pow(*unanswered)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::config::{BehaviorVersion, Config};
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::run_instances::RunInstancesError;
    use futures::future::join_all;
    use tokio::time::Instant;

    use super::*;

    const RUN: Rate = Rate { burst: 5.0, per_second: 2.0 };

    fn client() -> Client {
        Client::from_conf(Config::builder().behavior_version(BehaviorVersion::latest()).build())
    }

    fn throttled() -> SdkError<RunInstancesError, HttpResponse> {
        let code = ErrorMetadata::builder().code("RequestLimitExceeded").build();
        let answer = HttpResponse::new(503.try_into().unwrap(), "".into());
        SdkError::service_error(RunInstancesError::generic(code), answer)
    }

    /// 600 calls take five minutes in our own line, which is longer than a call goes on being throttled.
    #[tokio::test(start_paused = true)]
    async fn the_time_in_our_own_line_does_not_count_as_being_throttled() {
        let (api, client) = (Api::new(RUN), client());
        let call = |number: usize| {
            let (api, client) = (&api, &client);
            let mut refusals = usize::from(number == 599);
            async move {
                let send = |_| {
                    let refuse = std::mem::take(&mut refusals) > 0;
                    async move { if refuse { Err(throttled()) } else { Ok(()) } }
                };
                api.call(client, Action::Run, "create", send).await
            }
        };
        let began = Instant::now();
        for outcome in join_all((0..600).map(call)).await {
            outcome.unwrap();
        }
        assert!(began.elapsed() > THROTTLED_FOR, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_throttled_for_four_minutes_is_told() {
        let (api, client) = (Api::new(RUN), client());
        let send = |_| async { Err::<(), _>(throttled()) };
        let error = api.call(&client, Action::Run, "create", send).await.unwrap_err();
        assert!(error.kind == ErrorKind::Throttled && error.retry_after.is_some(), "{error}");
    }
}
