//! Users: who there is, and what each may do. Whether somebody is who he says, and may do what he asks, is for the
//! front end, which sees the same users on every node.

use std::ops::Bound;

use crate::command::{PutUser, PutUserWhen, RemoveUser};
use crate::limits::USERS_MAX;
use crate::machine::{Machine, Step};
use crate::record::{self, UserRecord};
use crate::reply::{Effect, Refusal, Reply};
use crate::store::{Store, Table};

impl<S: Store> Step<'_, S> {
    pub fn put_user(&mut self, command: PutUser) -> Reply {
        match self.changed_user(command) {
            Ok(user) => {
                self.store.put(Table::Users, user.name.as_bytes(), record::encode(&user));
                self.machine.users.insert(user.name.clone(), user);
                self.effect(Effect::UsersChanged);
                Reply::Done
            }
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn changed_user(&self, command: PutUser) -> Result<UserRecord, Refusal> {
        let (users, when) = (&self.machine.users, command.when());
        let mut user = match (users.get(&command.user), when) {
            (_, PutUserWhen::First) if !users.is_empty() => return Err(Refusal::NotTheFirstUser),
            (Some(user), PutUserWhen::Existing) => user.clone(),
            (Some(_), _) => return Err(Refusal::UserExists { user: command.user }),
            (None, PutUserWhen::Existing) => return Err(Refusal::UserNotFound { user: command.user }),
            (None, _) if users.len() >= USERS_MAX => return Err(Refusal::TooManyUsers { limit: USERS_MAX }),
            (None, _) => UserRecord { name: command.user, created_at_ms: self.now_ms(), ..UserRecord::default() },
        };
        let administrator = command.administrator.unwrap_or(user.administrator) || when == PutUserWhen::First;
        if user.administrator && !administrator {
            self.machine.check_not_last_administrator(&user.name)?;
        }
        user.administrator = administrator;
        if let Some(password_hash) = command.password_hash {
            user.password_hash = password_hash;
            user.passwords += 1;
        }
        user.permission = command.permission.unwrap_or(user.permission);
        Ok(user)
    }

    pub fn remove_user(&mut self, command: &RemoveUser) -> Reply {
        if !self.machine.users.contains_key(&command.user) {
            return Reply::Refused(Refusal::UserNotFound { user: command.user.clone() });
        }
        if let Err(refusal) = self.machine.check_not_last_administrator(&command.user) {
            return Reply::Refused(refusal);
        }
        self.machine.users.remove(&command.user);
        self.store.delete(Table::Users, command.user.as_bytes());
        self.effect(Effect::UsersChanged);
        Reply::Done
    }
}

impl Machine {
    /// A user by name.
    pub fn user(&self, name: &str) -> Option<&UserRecord> {
        self.users.get(name)
    }

    /// Up to `limit` users by name, after the name `after`.
    pub fn users(&self, after: Option<&str>, limit: usize) -> Vec<UserRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.users.range::<str, _>((from, Bound::Unbounded)).map(|(_, user)| user.clone()).take(limit).collect()
    }

    /// Without an administrator nobody could make another one.
    fn check_not_last_administrator(&self, name: &str) -> Result<(), Refusal> {
        let is_other = |user: &UserRecord| user.administrator && user.name != name;
        let is_one = self.users.get(name).is_some_and(|user| user.administrator);
        if is_one && !self.users.values().any(is_other) {
            return Err(Refusal::LastAdministrator { user: name.to_owned() });
        }
        Ok(())
    }
}
