//! Rows about users.

use prost::Message;

use crate::command::Permission;

/// A row of [`crate::Table::Users`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserRecord {
    /// Unique among the users.
    #[prost(string, tag = "1")]
    pub name: String,
    /// As the front end made it; empty: none, and no login by password.
    #[prost(string, tag = "2")]
    pub password_hash: String,
    /// May change the cluster and the users.
    #[prost(bool, tag = "3")]
    pub administrator: bool,
    /// What it may do in the namespace.
    #[prost(message, required, tag = "4")]
    pub permission: Permission,
    /// Machine time of its making.
    #[prost(uint64, tag = "5")]
    pub created_at_ms: u64,
    /// How often a password was set: whoever proved an earlier one has proved nothing of this user.
    #[prost(uint64, tag = "6")]
    pub passwords: u64,
}
