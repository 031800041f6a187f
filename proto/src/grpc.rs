//! Messages for gRPC (prost) with tonic clients and servers.

use crate::generated::generated;

generated! {
    /// What the node service tells its operator: `peerpods.v1.Sandboxes`.
    admin = "gen/grpc/admin.rs";
    /// The remote hypervisor API: `hypervisor.Hypervisor`.
    hypervisor = "gen/grpc/hypervisor.rs";
}
