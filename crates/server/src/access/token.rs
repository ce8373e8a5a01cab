//! Tokens: JWT (RFC 7519) that an issuer has signed with a key of a set (JWKS, RFC 7517). The set is a file, which is read
//! again while the node runs, so that the issuer can exchange its keys.
//!
//! A token names a user, and nothing more: what the user may do stands in the replicated state, where it can be seen, and
//! taken away at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::RwLock;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Longer ones are refused: HTTP/2 servers take 16 KiB of headers together.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// By how much the issuer's clock may differ from this node's, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The issuer's public keys: a JWKS.
    pub keys_file: PathBuf,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or contain.
    pub audience: String,
}

/// A set of keys that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is not there, or not readable.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {problem}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A token that proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too long.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    Long,
    /// No key of the set, or more than one, can be meant.
    #[error("the token's `kid` names none of the issuer's keys")]
    Key,
    /// It wants something to be understood that is not.
    #[error("the token's `crit` asks for what this node does not know")]
    Critical,
    /// Another issuer, audience or key, expired, malformed.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The user's name: the claim `sub`.
    pub user: String,
    /// From then on it proves nothing.
    pub expires_at: SystemTime,
}

/// Verifies tokens.
pub struct Tokens {
    settings: TokenSettings,
    current: RwLock<Arc<Keys>>,
}

struct Keys {
    /// To see whether the file has changed.
    content: Vec<u8>,
    keys: Vec<Key>,
    /// Keys of the set that no token is verified with.
    passed_over: Vec<String>,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    /// Those that it may be used with. A token that names another is no token: the key of one algorithm must not be taken
    /// for that of another.
    algorithms: Vec<Algorithm>,
}

/// Times are numbers, with a fraction or without. `Validation` compares them, and passes over an `nbf` that is no number:
/// here it makes the token malformed.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(rename = "nbf")]
    _not_before: Option<f64>,
}

/// What `decode_header` passes over.
#[derive(Deserialize)]
struct Extensions {
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Tokens {
    /// Reads the keys. Errors: [`KeysError`] names the file.
    pub fn open(settings: TokenSettings) -> Result<Tokens, KeysError> {
        let keys = Keys::of(&settings.keys_file, read(&settings.keys_file)?)?;
        keys.tell();
        Ok(Tokens { settings, current: RwLock::new(Arc::new(keys)) })
    }

    /// Reads the file again. True if it has changed. After an error the old keys stay in use.
    pub fn reload(&self) -> Result<bool, KeysError> {
        let content = read(&self.settings.keys_file)?;
        if content == self.current.read().content {
            return Ok(false);
        }
        let keys = Keys::of(&self.settings.keys_file, content)?;
        keys.tell();
        *self.current.write() = Arc::new(keys);
        Ok(true)
    }

    /// Whom the token names, if the issuer has signed it, for this audience, and it is valid now.
    pub fn verify(&self, token: &str) -> Result<Proven, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Long);
        }
        let header = decode_header(token)?;
        if has_critical(token) {
            return Err(TokenError::Critical);
        }
        let keys = self.current.read().clone();
        let key = keys.find(header.kid.as_deref(), header.alg).ok_or(TokenError::Key)?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms.clone_from(&key.algorithms);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let claims = decode::<Claims>(token, &key.key, &validation)?.claims;
        let expires_at =
            UNIX_EPOCH + Duration::from_secs_f64(claims.exp.clamp(0.0, u32::MAX.into()) + LEEWAY_SECONDS as f64);
        Ok(Proven { user: claims.sub, expires_at })
    }
}

impl Keys {
    fn of(file: &Path, content: Vec<u8>) -> Result<Keys, KeysError> {
        let wrong = |problem: String| KeysError::Content { file: file.to_owned(), problem };
        let set: Set = serde_json::from_slice(&content).map_err(|error| wrong(format!("no JWKS: {error}")))?;
        let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
        for jwk in &set.keys {
            match Key::of(jwk).map_err(|problem| wrong(format!("key {}: {problem}", name_of(jwk))))? {
                Some(key) => keys.push(key),
                None => passed_over.push(name_of(jwk).to_owned()),
            }
        }
        if keys.is_empty() {
            return Err(wrong("it holds no key that tokens can be verified with".to_owned()));
        }
        Ok(Keys { content, keys, passed_over })
    }

    /// An issuer may have keys for others, too: they are no reason to do without those that are for us.
    fn tell(&self) {
        if !self.passed_over.is_empty() {
            let keys = self.passed_over.join(", ");
            tracing::warn!(keys, "keys of the JWKS are passed over: they are of a kind or for a use that is not known");
        }
    }

    /// The key with this id. A token without an id is of the only key that fits, if there is one only.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    /// None for a key of another kind, or for another use: RFC 7517 (5) has them passed over.
    fn of(jwk: &Value) -> Result<Option<Key>, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let fitting = match (text("kty"), text("crv")) {
            // Whoever could verify tokens with it could make some, too.
            (Some("oct"), _) => return Err("it is a secret, and no public key".to_owned()),
            _ if jwk.get("d").is_some() => return Err("it is a private key, and no public one".to_owned()),
            (Some("RSA"), _) => {
                use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
                vec![RS256, RS384, RS512, PS256, PS384, PS512]
            }
            (Some("EC"), Some("P-256")) => vec![Algorithm::ES256],
            (Some("EC"), Some("P-384")) => vec![Algorithm::ES384],
            (Some("OKP"), Some("Ed25519")) => vec![Algorithm::EdDSA],
            _ => return Ok(None),
        };
        let is_own = |algorithm: &Algorithm| {
            text("alg").is_none_or(|own| own.parse::<Algorithm>().is_ok_and(|own| own == *algorithm))
        };
        let algorithms: Vec<Algorithm> = fitting.into_iter().filter(is_own).collect();
        if algorithms.is_empty() || text("use").is_some_and(|its_use| its_use != "sig") {
            return Ok(None);
        }
        let parsed = Jwk::deserialize(jwk).map_err(|error| error.to_string())?;
        let key = DecodingKey::from_jwk(&parsed).map_err(|error| error.to_string())?;
        Ok(Some(Key { id: parsed.common.key_id, key, algorithms }))
    }
}

/// How people recognize a key.
fn name_of(jwk: &Value) -> &str {
    jwk.get("kid").and_then(Value::as_str).unwrap_or("without `kid`")
}

/// RFC 7515 (4.1.11): who does not know what `crit` names must refuse, and none of it is known here.
fn has_critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let extensions = header.and_then(|header| serde_json::from_slice::<Extensions>(&header).ok());
    extensions.is_none_or(|extensions| extensions.crit.is_some())
}

fn read(file: &Path) -> Result<Vec<u8>, KeysError> {
    std::fs::read(file).map_err(|source| KeysError::Read { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests;
