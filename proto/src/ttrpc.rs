//! Messages for ttrpc (rust-protobuf) with asynchronous client and server stubs.
//!
//! A method a server does not implement answers NOT_FOUND by the generated default, where other ttrpc servers answer
//! UNIMPLEMENTED: take such methods out of the map that a `create_*` function returns to get the usual answer.

use crate::generated::generated;

generated! {
    /// The kata-agent's messages.
    agent = "gen/ttrpc/agent.rs";
    /// Client and server of `grpc.AgentService`.
    agent_ttrpc = "gen/ttrpc/agent_ttrpc.rs";
    /// Volume figures, used by [`agent`].
    csi = "gen/ttrpc/csi.rs";
    /// What a ttrpc frame holds: `Request`, `Response`, `Status`, `KeyValue`.
    envelope = "gen/ttrpc/ttrpc.rs";
    /// Messages of `grpc.Health`.
    health = "gen/ttrpc/health.rs";
    /// Client and server of `grpc.Health`.
    health_ttrpc = "gen/ttrpc/health_ttrpc.rs";
    /// Messages of the remote hypervisor API.
    hypervisor = "gen/ttrpc/hypervisor.rs";
    /// Client and server of `hypervisor.Hypervisor`.
    hypervisor_ttrpc = "gen/ttrpc/hypervisor_ttrpc.rs";
    /// The OCI runtime specification, used by [`agent`].
    oci = "gen/ttrpc/oci.rs";
    /// Network objects, used by [`agent`].
    types = "gen/ttrpc/types.rs";
}
