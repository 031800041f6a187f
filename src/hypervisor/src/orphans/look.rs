//! Looking: which VMs there are, and who on this node owns each.

use std::time::Duration;

use futures::StreamExt as _;
use peerpods_agentlink::{LinkSpec, ShimProcess, Shims};
use peerpods_podvm::causes::chain;
use peerpods_provider::{Instance, NODE_TAG, VmKey};

use super::decide::{Observed, Owner};
use super::error::OrphanError;
use crate::service::Service;

/// A provider that takes longer to list VMs has not answered.
const LIST_PATIENCE: Duration = Duration::from_secs(45);
/// A link that takes longer to say who holds its socket may be held.
const LINK_PATIENCE: Duration = Duration::from_secs(5);
/// Links asked at the same time.
const AT_ONCE: usize = 16;

/// A VM of the cluster: as the provider has it, and what it is to this node.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its key.
    pub key: VmKey,
    /// As the provider has it.
    pub instance: Instance,
    /// As the decision sees it.
    pub observed: Observed,
}

impl Service {
    /// Lists the cluster's VMs, then finds their owners: in this order, so that a VM whose record was written before the list was
    /// made has its owner found.
    pub(crate) async fn look_for_vms(&self) -> Result<Vec<Found>, OrphanError> {
        let (context, provider) = (&self.context, &self.context.parts.provider);
        let listed = tokio::time::timeout(LIST_PATIENCE, provider.list(&context.cluster)).await;
        let listed = listed.map_err(|_| OrphanError::Slow(LIST_PATIENCE))?;
        let listed = listed.map_err(|e| OrphanError::List(e.into()))?;
        let found = futures::stream::iter(listed).map(|(key, instance)| async {
            let owner = self.owner(&key).await;
            let observed = Observed {
                sandbox: key.sandbox.clone(),
                vm: instance.id.clone(),
                node: instance.tags.get(NODE_TAG).cloned(),
                owner,
            };
            Found { key, instance, observed }
        });
        Ok(found.buffered(AT_ONCE).collect().await)
    }

    async fn owner(&self, key: &VmKey) -> Owner {
        if let Some(published) = self.get(&key.sandbox) {
            return Owner::Sandbox(published.state);
        }
        match self.shims(key).await {
            Ok(None) => Owner::Nobody,
            Ok(Some(shims)) => held(shims),
            Err(why) => Owner::Shim(why),
        }
    }

    /// Whether a sandbox has a link process, also one that does not answer.
    pub(super) async fn has_link(&self, key: &VmKey) -> bool {
        !matches!(self.shims(key).await, Ok(None))
    }

    /// Who holds its agent socket; none where there is no link process.
    async fn shims(&self, key: &VmKey) -> Result<Option<Shims>, String> {
        let spec = LinkSpec {
            sandbox: key.sandbox.clone(),
            agent_socket: self.context.config.agent_socket(&key.sandbox),
        };
        match tokio::time::timeout(LINK_PATIENCE, self.context.parts.link.shims(&spec)).await {
            Ok(answer) => answer.map_err(|error| chain(&error)),
            Err(_) => Err("its link process does not answer".to_owned()),
        }
    }
}

fn held(shims: Shims) -> Owner {
    match shims {
        Shims { connections: 0, last: ShimProcess::Unknown | ShimProcess::Gone } => Owner::Nobody,
        Shims { connections: 0, last: ShimProcess::Lives } => {
            Owner::Shim("the shim that used its agent socket last still lives".to_owned())
        }
        Shims { connections, .. } => {
            Owner::Shim(format!("a shim holds its agent socket ({connections} connections)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_connection_or_a_living_shim_holds_a_vm() {
        use ShimProcess::{Gone, Lives, Unknown};
        for (connections, last, free) in [
            (0, Unknown, true),
            (0, Gone, true),
            (0, Lives, false),
            (1, Unknown, false),
            (2, Gone, false),
            (1, Lives, false),
        ] {
            let owner = held(Shims { connections, last });
            assert_eq!(owner == Owner::Nobody, free, "{connections} {last:?}");
        }
    }
}
