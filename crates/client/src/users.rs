//! Users, and what each may do. For administrators.

use dwell_proto::v1;
use dwell_proto::v1::users_client::UsersClient;

use crate::call::Policy;
use crate::client::{Client, PAGE};
use crate::connections::Channel;
use crate::error::Error;

impl Client {
    /// Makes a user. Without a password it cannot log in by one. Errors: [`Error::AlreadyExists`]; [`Error::Unknown`] if
    /// an answer was lost.
    pub async fn add_user(
        &self,
        user: impl Into<String>,
        password: Option<String>,
        administrator: bool,
        permission: v1::Permission,
    ) -> Result<(), Error> {
        let message = v1::AddUserRequest {
            user: user.into(),
            password: password.unwrap_or_default(),
            administrator,
            permission: Some(permission),
        };
        let outcome = self.core.call(Policy::ONCE, |channel| {
            let request = message.clone();
            async move { users(channel).add_user(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// Removes a user, whose streams end. Errors: [`Error::NotFound`]; [`Error::FailedPrecondition`] if it is the last
    /// administrator; [`Error::Unknown`] if an answer was lost and the user is gone now.
    pub async fn remove_user(&self, user: impl Into<String>) -> Result<(), Error> {
        let message = v1::RemoveUserRequest { user: user.into() };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { users(channel).remove_user(request).await }
        });
        outcome.await.deleted().map(drop)
    }

    /// Gives a user another password. Its streams end. Errors: [`Error::NotFound`].
    pub async fn set_password(&self, user: impl Into<String>, password: impl Into<String>) -> Result<(), Error> {
        let message = v1::SetPasswordRequest { user: user.into(), password: password.into() };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { users(channel).set_password(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// Says what a user may do from now on. Errors: [`Error::NotFound`]; [`Error::InvalidArgument`] if a pattern is none.
    pub async fn set_permission(&self, user: impl Into<String>, permission: v1::Permission) -> Result<(), Error> {
        let message =
            v1::SetPermissionRequest { namespace: String::new(), user: user.into(), permission: Some(permission) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { users(channel).set_permission(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// All users by name, with what they may do.
    pub async fn list_users(&self) -> Result<Vec<v1::User>, Error> {
        let mut message = v1::ListUsersRequest { page_size: PAGE, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let outcome = self.core.call(Policy::READ, |channel| {
                let request = self.read_request(message.clone());
                async move { users(channel).list_users(request).await }
            });
            let page = outcome.await.result?;
            found.extend(page.users);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            message.page_token = page.next_page_token;
        }
    }
}

fn users(channel: Channel) -> UsersClient<Channel> {
    UsersClient::new(channel)
}
