//! nftables over netlink: the few messages that one small table needs. No `nft` program is asked, because neither a pod VM's image nor
//! the service's container has one.
//!
//! Source of the wire format: the kernel's `include/uapi/linux/netfilter/nfnetlink.h` and `nf_tables.h`; of what is stored only for
//! the eyes of the `nft` program (comments, the types of a set's key): what that program itself stores.
//!
//! `attribute` writes and reads netlink attributes, `expression` makes rules, `message` makes and reads messages, `socket` carries them.
//! What they are for is not known here: see `guard`.

mod attribute;
mod expression;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod message;
mod socket;

pub(crate) use expression::{Expression, Verdict};
pub(crate) use message::{Chain, Element, Hook, KeyPart, Message, NewSet, Rule};
pub(crate) use socket::{NftError, Socket};
