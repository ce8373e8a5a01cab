//! Commands about users and what they may do.

/// Makes a user, or changes what is given of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PutUser {
    /// The user's name; not empty.
    #[prost(string, tag = "1")]
    pub user: String,
    /// Which users it is about.
    #[prost(enumeration = "PutUserWhen", tag = "2")]
    pub when: i32,
    /// A hash of the password, which only the front end understands; never the password. Unset: as it was; a new user
    /// cannot log in by password then.
    #[prost(string, optional, tag = "3")]
    pub password_hash: Option<String>,
    /// May change the cluster and the users. Unset: as it was; a new user may not.
    #[prost(bool, optional, tag = "4")]
    pub administrator: Option<bool>,
    /// Unset: as it was; a new user may nothing.
    #[prost(message, optional, tag = "5")]
    pub permission: Option<Permission>,
}

/// Whether a user may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PutUserWhen {
    /// It must not be there.
    New = 0,
    /// It must be there.
    Existing = 1,
    /// There must be no user at all. It becomes an administrator, whatever the command says.
    First = 2,
}

/// What a user may do in the namespace: regular expressions, each to match a whole name. An empty one matches nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Permission {
    /// What it may declare, change and delete.
    #[prost(string, tag = "1")]
    pub configure: String,
    /// Where it may publish, and withdraw messages.
    #[prost(string, tag = "2")]
    pub write: String,
    /// Where it may consume, and look at messages.
    #[prost(string, tag = "3")]
    pub read: String,
}

/// Removes a user. The last administrator stays.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RemoveUser {
    /// The user's name.
    #[prost(string, tag = "1")]
    pub user: String,
}
