//! The controllers of KataConfig, PeerPodConfig and PeerPod, and the webhooks: observe → decide → act, the decisions pure.

pub mod webhook;
