//! Keeping others out of the tunnels of this node's sandboxes. Anybody may flush a node's firewall, the tunnels' table with it, and the
//! pods run on; so it is looked at every minute, once for all sandboxes.

use std::time::Duration;

use peerpods_podnet::LaidTunnel;
use peerpods_podvm::admission::State;
use peerpods_podvm::causes::chain;
use tracing::warn;

use crate::driver::tunnel_specs;
use crate::service::Service;
use crate::state::Published;

/// A look that takes longer has failed, and the next is due.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Looks every [`keep_interval`](crate::Config::keep_interval), give or take a tenth, until the service ends.
pub(crate) async fn run(service: Service) {
    let ending = service.ending.clone();
    let looks = async {
        loop {
            tokio::time::sleep(crate::backoff::jittered(service.context.config.keep_interval)).await;
            look(&service).await;
        }
    };
    tokio::select! {
        biased;
        () = looks => {}
        () = ending.leave.cancelled() => {}
        () = ending.abandon.cancelled() => {}
    }
}

async fn look(service: &Service) {
    // Asked in the middle of the look: a sandbox enters "stopping" before its tunnels are taken down, so none is put back after that.
    let laid = || service.list().iter().flat_map(|(_, published)| tunnels(published)).collect();
    let context = &service.context;
    let kept = tokio::time::timeout(ANSWER_WITHIN, context.turns.node(context.parts.tunnel.keep(&laid)));
    match kept.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(error = chain(&error), "cannot see whether tunnels are guarded; trying again");
        }
        Err(_) => warn!("nobody says whether tunnels are guarded; asking again"),
    }
}

/// The tunnels of a sandbox that may be there and that nobody is about to take down.
fn tunnels(published: &Published) -> Vec<LaidTunnel> {
    let kept = matches!(published.state, State::Starting | State::Running);
    let Some(record) = published.record.as_ref().filter(|_| kept) else { return Vec::new() };
    let laid = |spec| LaidTunnel { netns: record.netns.clone(), spec };
    tunnel_specs(record).into_iter().map(laid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TunnelRecord;
    use crate::record::tests::a_record;
    use crate::state::Publisher;

    #[test]
    fn only_tunnels_that_nobody_takes_down_are_kept() {
        let mut record = a_record("a");
        let (publisher, published) = Publisher::new(record.sandbox.clone());
        let kept = || tunnels(&published.borrow());
        publisher.record(&record);
        publisher.enter(State::Starting);
        assert_eq!(kept(), [], "no address is known yet");
        let remote = "10.0.0.2".parse().unwrap();
        record.tunnel = Some(TunnelRecord { pod_interface: "eth0".into(), remote, local: None });
        publisher.record(&record);
        for (state, expected) in [
            (State::Created, 0),
            (State::Starting, 1),
            (State::Running, 1),
            (State::Stopping, 0),
            (State::Gone, 0),
        ] {
            publisher.enter(state);
            assert_eq!(kept().len(), expected, "{state:?}");
            assert!(kept().iter().all(|one| one.netns == record.netns && one.spec.vni == record.vni));
        }
    }
}
