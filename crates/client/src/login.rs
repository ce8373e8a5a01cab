//! Whose a client's calls are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::Error;

/// How long a token is used before its file is looked at again.
const TOKEN_READ_INTERVAL: Duration = Duration::from_secs(5);

/// How a client proves whose its calls are. Without any, it may still do so by the certificate of its connection.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// It is sent with each call: use TLS where others could listen.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// A file with a token (JWT), which is read again every few seconds: tokens expire, and something renews them, as
    /// Kubernetes does those of its service accounts.
    TokenFile(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options find their way into logs.
        match self {
            Login::Password { user, .. } => {
                formatter.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Login::TokenFile(file) => formatter.debug_tuple("TokenFile").field(file).finish(),
        }
    }
}

/// Says whose a call is, if the client has a login. Cheap to clone; the clones share a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authorization(Option<Proof>);

#[derive(Debug, Clone)]
enum Proof {
    Password(MetadataValue<Ascii>),
    TokenFile { file: Arc<Path>, token: Arc<Mutex<Option<Token>>> },
}

#[derive(Debug)]
struct Token {
    value: MetadataValue<Ascii>,
    read_at: Instant,
}

impl Authorization {
    /// Errors: [`Error::InvalidArgument`] if it cannot be sent, or the token not be read.
    pub(crate) fn new(login: Option<&Login>) -> Result<Authorization, Error> {
        let proof = match login {
            None => return Ok(Authorization(None)),
            Some(Login::Password { user, password }) => {
                let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
                Proof::Password(secret(basic)?)
            }
            Some(Login::TokenFile(file)) => Proof::TokenFile { file: file.as_path().into(), token: Arc::default() },
        };
        proof.value()?;
        Ok(Authorization(Some(proof)))
    }
}

impl Proof {
    fn value(&self) -> Result<MetadataValue<Ascii>, Error> {
        let (file, token) = match self {
            Proof::Password(value) => return Ok(value.clone()),
            Proof::TokenFile { file, token } => (file, token),
        };
        let mut token = token.lock();
        if let Some(token) = token.as_ref().filter(|token| token.read_at.elapsed() < TOKEN_READ_INTERVAL) {
            return Ok(token.value.clone());
        }
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| Error::InvalidArgument(format!("the token in {}: {error}", file.display())))?;
        let value = secret(format!("Bearer {}", text.trim()))?;
        *token = Some(Token { value: value.clone(), read_at: Instant::now() });
        Ok(value)
    }
}

fn secret(text: String) -> Result<MetadataValue<Ascii>, Error> {
    let value = MetadataValue::try_from(text);
    let mut value = value.map_err(|error| Error::InvalidArgument(format!("the login cannot be sent: {error}")))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(proof) = &self.0 {
            let value = proof.value().map_err(|error| Status::unauthenticated(error.to_string()))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(authorization: &mut Authorization) -> String {
        let request = authorization.call(Request::new(())).unwrap();
        request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let login = Login::Password { user: "ada".into(), password: "correct horse".into() };
        let mut authorization = Authorization::new(Some(&login)).unwrap();
        assert_eq!(sent(&mut authorization), "Basic YWRhOmNvcnJlY3QgaG9yc2U=");
        let shown = format!("{login:?} {authorization:?}");
        assert!(shown.contains("ada") && !shown.contains("horse") && !shown.contains("YWRh"), "{shown}");
    }

    #[test]
    fn a_token_is_that_of_the_file_and_one_that_is_not_there_is_told() {
        let file = std::env::temp_dir().join(format!("dwell-token-{}", std::process::id()));
        let login = Login::TokenFile(file.clone());
        let error = Authorization::new(Some(&login)).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        std::fs::write(&file, "abc.def.ghi\n").unwrap();
        let mut authorization = Authorization::new(Some(&login)).unwrap();
        assert_eq!(sent(&mut authorization), "Bearer abc.def.ghi");
        std::fs::remove_file(&file).unwrap();
    }
}
