//! How long to wait before a peer is tried again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A follower that was restarted accepts connections again within milliseconds: the leader tries soon, and
/// does not wait long between tries, because one refused connection costs next to nothing.
const DELAY_FIRST: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_millis(200);

/// The delays before the first, second, ... repetition.
pub(super) fn delays() -> impl Iterator<Item = Duration> + Send + 'static {
    std::iter::successors(Some(DELAY_FIRST), |delay| Some((*delay * 2).min(DELAY_MAX)))
}

/// Remembers how the last attempts went.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: usize,
    not_before: Option<Instant>,
}

impl Retry {
    /// Waits, if the last attempt failed a moment ago.
    pub(super) async fn wait(&self) {
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
        }
    }

    /// Notes how an attempt went.
    pub(super) fn note(&mut self, succeeded: bool) {
        if succeeded {
            *self = Self::default();
            return;
        }
        let delay = delays().nth(self.failures).unwrap_or(DELAY_MAX);
        // Beyond this the delay stays the same.
        self.failures = (self.failures + 1).min(8);
        self.not_before = Some(Instant::now() + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit() {
        let millis: Vec<_> = delays().take(7).map(|delay| delay.as_millis()).collect();
        assert_eq!(millis, [20, 40, 80, 160, 200, 200, 200]);
    }

    #[tokio::test]
    async fn only_a_failure_is_followed_by_a_delay() {
        let mut retry = Retry::default();
        assert_eq!(retry.not_before, None);
        retry.note(false);
        let noted = Instant::now();
        retry.wait().await;
        assert!(noted.elapsed() >= Duration::from_millis(15), "waited only {:?}", noted.elapsed());
        retry.note(true);
        assert_eq!(retry.not_before, None);
    }
}
