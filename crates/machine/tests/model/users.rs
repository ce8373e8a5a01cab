//! Users.

use dwell_machine::{Effect, PutUser, PutUserWhen, Refusal, RemoveUser, Reply, UserRecord};

use crate::reference::Reference;

impl Reference {
    pub fn put_user(&mut self, put: &PutUser) -> Result<Reply, Refusal> {
        let user = put.user.clone();
        let is_known = self.users.contains_key(&user);
        match put.when() {
            PutUserWhen::First if !self.users.is_empty() => return Err(Refusal::NotTheFirstUser),
            PutUserWhen::New if is_known => return Err(Refusal::UserExists { user }),
            PutUserWhen::Existing if !is_known => return Err(Refusal::UserNotFound { user }),
            _ => {}
        }
        if put.administrator == Some(false) && put.when() == PutUserWhen::Existing && self.is_last_administrator(&user)
        {
            return Err(Refusal::LastAdministrator { user });
        }
        let (created_at_ms, name) = (self.now_ms, user.clone());
        let known = self.users.entry(user).or_insert(UserRecord { name, created_at_ms, ..UserRecord::default() });
        known.administrator = put.administrator.unwrap_or(known.administrator);
        known.administrator |= put.when() == PutUserWhen::First;
        if let Some(hash) = &put.password_hash {
            known.password_hash.clone_from(hash);
            known.passwords += 1;
        }
        if let Some(permission) = &put.permission {
            known.permission = permission.clone();
        }
        self.effects.push(Effect::UsersChanged);
        Ok(Reply::Done)
    }

    pub fn remove_user(&mut self, remove: &RemoveUser) -> Result<Reply, Refusal> {
        let user = remove.user.clone();
        if !self.users.contains_key(&user) {
            return Err(Refusal::UserNotFound { user });
        }
        if self.is_last_administrator(&user) {
            return Err(Refusal::LastAdministrator { user });
        }
        self.users.remove(&user);
        self.effects.push(Effect::UsersChanged);
        Ok(Reply::Done)
    }

    fn is_last_administrator(&self, name: &str) -> bool {
        let administrators: Vec<&str> =
            self.users.values().filter(|user| user.administrator).map(|user| user.name.as_str()).collect();
        administrators == [name]
    }
}
