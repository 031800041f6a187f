//! Both ends of the tunnel against the kernel: a "worker" and a "VM" namespace joined by a veth pair as the underlay, pods' namespaces
//! on the worker, `podns` in the VM. Nothing touches the machine's own network.

#[cfg(test)]
mod bed;
#[cfg(test)]
mod block;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod mtu;
#[cfg(test)]
mod path;
#[cfg(test)]
mod places;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod table;
#[cfg(test)]
mod traffic;
