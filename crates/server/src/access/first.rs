//! The first user, who makes all others.

use std::path::Path;
use std::time::Duration;

use dwell_machine::{Command, Permission, PutUser, PutUserWhen, Reply};

use crate::config::Config;
use crate::node::ServerError;
use crate::services::Services;

/// Pause before the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Everything.
const ALL: &str = ".*";

/// Who it is to be.
pub struct FirstUser {
    name: String,
    password: String,
}

impl FirstUser {
    /// As configured; `None` if there is to be none.
    pub fn read(config: &Config) -> Result<Option<FirstUser>, ServerError> {
        let Some(file) = &config.initial_password_file else { return Ok(None) };
        let password = first_line(file)
            .map_err(|source| ServerError::InitialPassword { file: file.display().to_string(), source })?;
        Ok(Some(FirstUser { name: config.initial_user.clone(), password }))
    }

    /// Makes it, if there are no users yet, as soon as this node leads.
    pub async fn make(self, services: Services) {
        let mut leadership = services.group.leadership.clone();
        let password_hash = match super::hash(self.password).await {
            Ok(password_hash) => password_hash,
            Err(error) => return tracing::error!(%error, "the first user was not made"),
        };
        let put = PutUser {
            user: self.name.clone(),
            when: PutUserWhen::First.into(),
            password_hash: Some(password_hash),
            administrator: Some(true),
            permission: Some(Permission { configure: ALL.into(), write: ALL.into(), read: ALL.into() }),
        };
        loop {
            if leadership.wait_for(|leadership| leadership.is_local).await.is_err() {
                return;
            }
            match services.group.proposer.propose(Command::PutUser(put.clone())).await {
                Ok(Reply::Done) => return tracing::info!(user = self.name, "made the first user"),
                // There are users.
                Ok(_) => return,
                // It leads no more, or not all members are known to understand the command.
                Err(error) => tracing::debug!(%error, "the first user is not made yet"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

fn first_line(file: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    crate::validate::password("password", &password)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.problem))?;
    Ok(password)
}
