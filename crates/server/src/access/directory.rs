//! The users as this node has applied them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dwell_consensus::group::{Consistency, Group};
use dwell_machine::UserRecord;
use dwell_machine::limits::{PATTERN_BYTES_MAX, USERS_MAX};
use regex::{Regex, RegexBuilder};
use tokio::sync::{Mutex, watch};

use super::needs::Need;

/// Memory that one compiled pattern may take, in bytes. A pattern of names takes a few thousand.
const PATTERN_MEMORY_MAX: usize = 64 * 1024;

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Longer than any pattern of names need be.
    #[error("must have at most {PATTERN_BYTES_MAX} bytes, not {0}")]
    Long(usize),
    /// It does not compile, or takes too much memory.
    #[error("is no regular expression that can be used: {0}")]
    Syntax(#[from] regex::Error),
}

/// Compiles a pattern so that it matches whole names. `None`: it is empty and matches nothing.
pub fn compile(pattern: &str) -> Result<Option<Regex>, PatternError> {
    if pattern.is_empty() {
        return Ok(None);
    }
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::Long(pattern.len()));
    }
    // By itself first: it must not close the group that is put around it.
    RegexBuilder::new(pattern).size_limit(PATTERN_MEMORY_MAX).build()?;
    Ok(Some(RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(PATTERN_MEMORY_MAX).build()?))
}

/// A user with its patterns.
#[derive(Debug)]
pub struct User {
    pub record: UserRecord,
    configure: Option<Regex>,
    write: Option<Regex>,
    read: Option<Regex>,
}

impl User {
    fn new(record: UserRecord) -> User {
        // They were compiled before they were stored. What a later version stored may not compile: it permits nothing.
        let pattern = |text: &str| compile(text).ok().flatten();
        let permission = &record.permission;
        let (configure, write) = (pattern(&permission.configure), pattern(&permission.write));
        let read = pattern(&permission.read);
        User { record, configure, write, read }
    }

    /// True if it may do what needs this.
    pub fn may(&self, need: &Need<'_>) -> bool {
        let matches = |pattern: &Option<Regex>, name: &str| pattern.as_ref().is_some_and(|it| it.is_match(name));
        match need {
            Need::User => true,
            Need::Administrator(_) => self.record.administrator,
            Need::Configure(name) => matches(&self.configure, name),
            Need::Write(name) => matches(&self.write, name),
            Need::Read(name) => matches(&self.read, name),
        }
    }
}

type Users = BTreeMap<String, Arc<User>>;

/// Who there is.
#[derive(Default)]
pub struct Directory {
    users: watch::Sender<Arc<Users>>,
    /// Held while the users are read, so that what was read later is not overwritten by what was read before.
    refreshing: Mutex<()>,
}

impl Directory {
    /// Takes in what this node has applied so far.
    pub async fn refresh(&self, group: &Group) {
        let _refreshing = self.refreshing.lock().await;
        let records = match group.read(Consistency::Stale, |machine| machine.users(None, USERS_MAX)).await {
            Ok(records) => records,
            Err(error) => return tracing::warn!(%error, "the users could not be read"),
        };
        let known = self.users.borrow().clone();
        let users: Users = records
            .into_iter()
            .map(|record| match known.get(&record.name) {
                Some(user) if user.record == record => (record.name, user.clone()),
                _ => (record.name.clone(), Arc::new(User::new(record))),
            })
            .collect();
        self.users.send_replace(Arc::new(users));
    }

    /// A user by name.
    pub fn find(&self, name: &str) -> Option<Arc<User>> {
        self.users.borrow().get(name).cloned()
    }

    /// True as long as there are none.
    pub fn is_empty(&self) -> bool {
        self.users.borrow().is_empty()
    }

    /// Waits until the user is not what it was.
    pub fn changed(&self, user: Arc<User>) -> impl Future<Output = Changed> + Send + use<> {
        let mut users = self.users.subscribe();
        async move {
            let now = users.wait_for(|users| {
                let now = users.get(&user.record.name);
                now.is_none_or(|now| now.record != user.record)
            });
            let changed = now.await.ok().map(|users| match users.get(&user.record.name) {
                Some(now) if is_same_login(&now.record, &user.record) => Changed::Permission,
                _ => Changed::Login,
            });
            match changed {
                Some(changed) => changed,
                // The node is on its way out.
                None => std::future::pending().await,
            }
        }
    }
}

fn is_same_login(one: &UserRecord, other: &UserRecord) -> bool {
    one.created_at_ms == other.created_at_ms && one.passwords == other.passwords
}

/// What is another than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// What the user may do.
    Permission,
    /// The user is gone, or has another password.
    Login,
    /// The user is what it was, and its token proves nothing any more.
    Expired,
}

#[cfg(test)]
mod tests {
    use dwell_machine::Permission;

    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_an_empty_one_nothing() {
        let matches = |pattern: &str, name: &str| compile(pattern).unwrap().is_some_and(|it| it.is_match(name));
        assert!(matches("orders", "orders") && !matches("orders", "orders-2") && !matches("orders", "my-orders"));
        assert!(matches("a|b", "b") && !matches("a|b", "ab") && matches("^orders-.*$", "orders-2"));
        assert!(matches(".*", "anything") && !matches("", "") && !matches("", "a"));
        assert!(!matches("(?m)^a$", "a\nb"));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_a_one_is_refused() {
        for wrong in ["(", "a)|(.*", "a{1000}{1000}", &"x".repeat(1001)] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_administrator_has_no_permission_on_queues_by_that() {
        let permission = Permission { configure: String::new(), write: "w".into(), read: String::new() };
        let user = User::new(UserRecord { administrator: true, permission, ..UserRecord::default() });
        assert!(user.may(&Need::Administrator("")) && user.may(&Need::User) && user.may(&Need::Write("w")));
        assert!(!user.may(&Need::Write("v")) && !user.may(&Need::Read("w")) && !user.may(&Need::Configure("w")));
    }
}
