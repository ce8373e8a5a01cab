//! `dwell.v1.Users`.

use dwell_machine::{Command, PutUser, RemoveUser, UserRecord};
use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::{Page, Services, after, consistency, signed};
use crate::access::hash;
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::users_server::Users for Services {
    #[tracing::instrument(skip_all, fields(user = %request.get_ref().user))]
    async fn add_user(&self, request: Request<v1::AddUserRequest>) -> Result<Response<v1::AddUserResponse>, Status> {
        let (put, password) = validate::add_user(request.into_inner()).map_err(RequestError::from)?;
        self.put_user(put, password).await?;
        Ok(Response::new(v1::AddUserResponse {}))
    }

    #[tracing::instrument(skip_all, fields(user = %request.get_ref().user))]
    async fn remove_user(
        &self,
        request: Request<v1::RemoveUserRequest>,
    ) -> Result<Response<v1::RemoveUserResponse>, Status> {
        let user = request.into_inner().user;
        validate::user_name("user", &user).map_err(RequestError::from)?;
        self.done(Command::RemoveUser(RemoveUser { user })).await?;
        self.access.refresh().await;
        Ok(Response::new(v1::RemoveUserResponse {}))
    }

    #[tracing::instrument(skip_all, fields(user = %request.get_ref().user))]
    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::SetPasswordResponse>, Status> {
        let (put, password) = validate::set_password(request.into_inner()).map_err(RequestError::from)?;
        self.put_user(put, Some(password)).await?;
        Ok(Response::new(v1::SetPasswordResponse {}))
    }

    #[tracing::instrument(skip_all, fields(user = %request.get_ref().user))]
    async fn set_permission(
        &self,
        request: Request<v1::SetPermissionRequest>,
    ) -> Result<Response<v1::SetPermissionResponse>, Status> {
        let put = validate::set_permission(request.into_inner()).map_err(RequestError::from)?;
        self.put_user(put, None).await?;
        Ok(Response::new(v1::SetPermissionResponse {}))
    }

    #[tracing::instrument(skip_all)]
    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let consistency = consistency(request.metadata());
        let request = request.into_inner();
        let page_size = validate::page_size(request.page_size).map_err(RequestError::from)?;
        let after = after(request.page_token);
        let users = self.group.read(consistency, move |machine| machine.users(after.as_deref(), page_size + 1));
        let page = Page::of(users.await.map_err(RequestError::from)?, page_size);
        let next_page_token = page.last().map(|user| user.name.clone()).unwrap_or_default();
        let users = page.items.into_iter().map(user_of).collect();
        Ok(Response::new(v1::ListUsersResponse { users, next_page_token }))
    }
}

impl Services {
    async fn put_user(&self, mut put: PutUser, password: Option<String>) -> Result<(), RequestError> {
        if let Some(password) = password {
            put.password_hash = Some(hash(password).await?);
        }
        self.done(Command::PutUser(put)).await?;
        self.access.refresh().await;
        Ok(())
    }
}

fn user_of(user: UserRecord) -> v1::User {
    let permission = v1::Permission {
        configure: user.permission.configure,
        write: user.permission.write,
        read: user.permission.read,
    };
    v1::User {
        name: user.name,
        administrator: user.administrator,
        has_password: !user.password_hash.is_empty(),
        permission: Some(permission),
        created_at_ms: signed(user.created_at_ms),
    }
}
