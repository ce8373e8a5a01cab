//! Requests about users.

use dwell_machine::limits::NAME_BYTES_MAX;
use dwell_machine::{Permission, PutUser, PutUserWhen};
use dwell_proto::v1;

use super::{Checked, invalid, namespace, under};
use crate::access::compile;

const PASSWORD_BYTES_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1024;

/// Checks a user's name, which travels in headers. Those of Kubernetes' service accounts have colons, and SPIFFE's slashes.
pub fn user_name(field: &str, name: &str) -> Checked<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-:/".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_allowed) {
        return invalid(field, format!("must have 1 to {NAME_BYTES_MAX} letters, digits and `. _ @ - : /`"));
    }
    Ok(())
}

/// Checks the password of a user. A login by password ends the name at the first colon (RFC 7617).
fn password_of(user: &str, given: &str) -> Checked<()> {
    if user.contains(':') {
        return invalid(
            "password",
            "must be empty for a user with a colon in its name: it proves itself in other ways",
        );
    }
    password("password", given)
}

/// Checks a password.
pub fn password(field: &str, password: &str) -> Checked<()> {
    let length = password.len();
    if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&length) {
        return invalid(field, format!("must have {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes, not {length}"));
    }
    Ok(())
}

/// Checks a user that is to be made. Its password, if it has one, is still to be hashed.
pub fn add_user(request: v1::AddUserRequest) -> Checked<(PutUser, Option<String>)> {
    user_name("user", &request.user)?;
    if !request.password.is_empty() {
        password_of(&request.user, &request.password)?;
    }
    let put = PutUser {
        user: request.user,
        when: PutUserWhen::New.into(),
        password_hash: None,
        administrator: Some(request.administrator),
        permission: Some(permission(request.permission)?),
    };
    Ok((put, Some(request.password).filter(|password| !password.is_empty())))
}

/// Checks another password for a user, which is still to be hashed.
pub fn set_password(request: v1::SetPasswordRequest) -> Checked<(PutUser, String)> {
    user_name("user", &request.user)?;
    password_of(&request.user, &request.password)?;
    let put = PutUser { user: request.user, when: PutUserWhen::Existing.into(), ..PutUser::default() };
    Ok((put, request.password))
}

/// Checks another permission for a user.
pub fn set_permission(request: v1::SetPermissionRequest) -> Checked<PutUser> {
    namespace(&request.namespace)?;
    user_name("user", &request.user)?;
    let permission = Some(permission(request.permission)?);
    Ok(PutUser { user: request.user, when: PutUserWhen::Existing.into(), permission, ..PutUser::default() })
}

fn permission(permission: Option<v1::Permission>) -> Checked<Permission> {
    let v1::Permission { configure, write, read } = permission.unwrap_or_default();
    for (field, pattern) in [("configure", &configure), ("write", &write), ("read", &read)] {
        under("permission", compile(pattern).map(drop).or_else(|error| invalid(field, error.to_string())))?;
    }
    Ok(Permission { configure, write, read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_have_their_limits() {
        for wrong in ["", "a b", "a\n", "ä", &"x".repeat(256)] {
            assert!(user_name("user", wrong).is_err(), "{wrong}");
        }
        for right in ["ada.b-c_d@example", "system:serviceaccount:shop:worker", "spiffe://example/worker"] {
            assert!(user_name("user", right).is_ok(), "{right}");
        }
        let with_colon = v1::SetPasswordRequest { user: "a:b".into(), password: "12345678".into() };
        assert_eq!(set_password(with_colon).unwrap_err().field, "password");
        assert!(password("password", "1234567").is_err() && password("password", "12345678").is_ok());
        assert!(password("password", &"x".repeat(1025)).is_err());
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_by_its_path() {
        let permission = v1::Permission { read: "(".into(), ..Default::default() };
        let request =
            v1::AddUserRequest { user: "a".into(), permission: Some(permission.clone()), ..Default::default() };
        assert_eq!(add_user(request).unwrap_err().field, "permission.read");
        let request = v1::SetPermissionRequest { user: "a".into(), permission: Some(permission), ..Default::default() };
        assert_eq!(set_permission(request).unwrap_err().field, "permission.read");
    }
}
