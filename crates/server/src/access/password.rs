//! Passwords: hashed by argon2id, which is slow so that a stolen hash is of little use. What was verified is remembered
//! for a while, by a digest that only this process can make.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use parking_lot::Mutex;
use prometheus::IntGauge;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::directory::User;

/// Of so many processors one may compute hashes: each takes 19 MiB and some 20 ms of it, for whoever asks.
const PROCESSORS_PER_WORKER: usize = 4;
/// Calls that may wait for that. More are refused, to be repeated.
const WAITING_MAX: usize = 256;
/// Logins that are remembered.
const VERIFIED_MAX: usize = 10_000;
/// For how long.
const VERIFIED_FOR: Duration = Duration::from_secs(300);

/// Hashing is a scarce resource.
static WORK: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((processors / PROCESSORS_PER_WORKER).max(1))
});
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Verified in place of the hash of a user that does not exist, so that nobody learns by the clock who does.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_now("nobody's password").unwrap_or_default());

/// A password could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It may be tried again.
    #[error("too many passwords are being verified: at most {WAITING_MAX} wait")]
    Busy,
    /// Argon2 failed, or ended.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
}

/// What the metadata `authorization` says.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// `Basic`, as in HTTP (RFC 7617).
    Password { user: String, password: String },
    /// `Bearer` (RFC 6750).
    Token(String),
}

impl Proof {
    /// `None` if it is no such thing.
    pub fn of(header: &HeaderValue) -> Option<Proof> {
        let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Proof::Token(encoded.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let login = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = login.split_once(':')?;
        Some(Proof::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Hashes a password, with a salt drawn by lot.
pub async fn hash(password: String) -> Result<String, PasswordError> {
    let turn = Turn::wait_for().await?;
    turn.work(move || hash_now(&password)).await?
}

fn hash_now(password: &str) -> Result<String, PasswordError> {
    let failed = |error: argon2::password_hash::Error| PasswordError::Hash(error.to_string());
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(failed)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

fn is_password_of(hash: &str, password: &str) -> bool {
    let hash = PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The right to compute a hash, for which few wait.
struct Turn {
    _permit: SemaphorePermit<'static>,
}

impl Turn {
    async fn wait_for() -> Result<Turn, PasswordError> {
        let _place = Place::take()?;
        Ok(Turn { _permit: WORK.acquire().await.map_err(|_| PasswordError::Busy)? })
    }

    /// Does slow work on a thread where nobody waits for it.
    async fn work<T: Send + 'static>(self, slow: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        tokio::task::spawn_blocking(slow).await.map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

/// Calls that wait until a password can be hashed.
pub(super) fn waiting() -> usize {
    WAITING.load(Ordering::Relaxed)
}

/// A place among those that wait.
struct Place;

impl Place {
    fn take() -> Result<Place, PasswordError> {
        let place = Place;
        match WAITING.fetch_add(1, Ordering::Relaxed) {
            waiting if waiting < WAITING_MAX => Ok(place),
            _ => Err(PasswordError::Busy),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The logins that were verified.
pub struct Passwords {
    secret: [u8; 32],
    verified: Mutex<HashMap<[u8; 32], Instant>>,
    /// How many.
    count: IntGauge,
}

impl Passwords {
    /// Tells how many logins it remembers by the gauge.
    pub fn new(count: IntGauge) -> Passwords {
        Passwords { secret: rand::random(), verified: Mutex::default(), count }
    }

    /// True if it is the user's password. A user that does not exist has none, and takes as long.
    pub async fn verify(&self, user: Option<&User>, password: String) -> Result<bool, PasswordError> {
        let Some(user) = user.filter(|user| !user.record.password_hash.is_empty()) else {
            let turn = Turn::wait_for().await?;
            return turn.work(move || is_password_of(&NOBODY, &password)).await.map(|_| false);
        };
        let digest = self.digest(user, &password);
        if self.is_verified(&digest) {
            return Ok(true);
        }
        let turn = Turn::wait_for().await?;
        // Another call of the same user may have been before this one.
        if self.is_verified(&digest) {
            return Ok(true);
        }
        let hash = user.record.password_hash.clone();
        let is_right = turn.work(move || is_password_of(&hash, &password)).await?;
        if is_right {
            self.remember(digest);
        }
        Ok(is_right)
    }

    /// Of this password of this user, as it is now: another password, or another user of that name, has another digest.
    fn digest(&self, user: &User, password: &str) -> [u8; 32] {
        let record = &user.record;
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update(record.created_at_ms.to_be_bytes());
        digest.update(record.passwords.to_be_bytes());
        digest.update((record.name.len() as u64).to_be_bytes());
        digest.update(record.name.as_bytes());
        digest.update(password.as_bytes());
        digest.finalize().into()
    }

    fn is_verified(&self, digest: &[u8; 32]) -> bool {
        self.verified.lock().get(digest).is_some_and(|at| at.elapsed() < VERIFIED_FOR)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, at| at.elapsed() < VERIFIED_FOR);
        }
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(digest, Instant::now());
        self.count.set(i64::try_from(verified.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_password_and_says_nothing_of_it() {
        let (one, other) = (hash_now("correct horse").unwrap(), hash_now("correct horse").unwrap());
        assert!(one.starts_with("$argon2id$") && one != other && !one.contains("horse"));
        assert!(is_password_of(&one, "correct horse") && is_password_of(&other, "correct horse"));
        assert!(!is_password_of(&one, "correct horse ") && !is_password_of("", "") && !is_password_of("x", "x"));
    }

    #[test]
    fn a_login_is_read_from_a_basic_header() {
        let of = |text: &str| Proof::of(&HeaderValue::from_str(text).unwrap());
        let basic = |login: &str| format!("Basic {}", BASE64_STANDARD.encode(login));
        let login = |user: &str, password: &str| Proof::Password { user: user.into(), password: password.into() };
        assert_eq!(of(&basic("ada:a:b")), Some(login("ada", "a:b")));
        assert_eq!(of(&basic("ada:").replace("Basic", "basic")), Some(login("ada", "")));
        assert_eq!(of("Bearer abc"), Some(Proof::Token("abc".into())));
        for wrong in [basic("ada"), "Digest abc".into(), "Basic ???".into(), "Basic".into()] {
            assert_eq!(of(&wrong), None, "{wrong}");
        }
    }
}
