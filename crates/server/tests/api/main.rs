//! The client API, as a client of a follower sees it: each call goes through validation, forwarding, the machine and
//! back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod cluster;
mod exchanges;
mod inventory;
mod messages;
mod queues;
mod scaler;
mod schedules;
