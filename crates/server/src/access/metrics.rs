//! What is counted of users and their calls.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, PullingGauge, Registry};

use super::password;

/// Cheap to clone.
#[derive(Clone)]
pub struct AccessMetrics {
    /// Calls by whether their user was proved.
    pub authentications: IntCounterVec,
    /// Files with the issuer's keys that were taken over, or could not be.
    pub key_reloads: IntCounterVec,
    /// Requests that their user may not make.
    pub denied: IntCounter,
    /// Responses that ended because their user is not what it was.
    pub ended: IntCounter,
    /// Logins that need not be verified again.
    pub verified: IntGauge,
}

impl AccessMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<AccessMetrics, prometheus::Error> {
        let metrics = AccessMetrics {
            authentications: IntCounterVec::new(
                Opts::new("dwell_authentications_total", "Calls by whether their user was proved."),
                &["outcome"],
            )?,
            key_reloads: IntCounterVec::new(
                Opts::new("dwell_token_key_reloads_total", "Changed JWKS files that were taken over, or could not be."),
                &["outcome"],
            )?,
            denied: IntCounter::new("dwell_permission_denied_total", "Requests that their user may not make.")?,
            ended: IntCounter::new("dwell_revoked_calls_total", "Calls ended because their user is not what it was.")?,
            verified: IntGauge::new("dwell_verified_logins", "Logins that are remembered, and not verified again.")?,
        };
        // There from the start, so that an alert on them has something to look at.
        for outcome in ["accepted", "refused", "not_decided"] {
            metrics.authentications.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.authentications.clone()))?;
        for outcome in ["done", "failed"] {
            metrics.key_reloads.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.key_reloads.clone()))?;
        registry.register(Box::new(metrics.denied.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        registry.register(Box::new(metrics.verified.clone()))?;
        registry.register(Box::new(PullingGauge::new(
            "dwell_password_verifications_waiting",
            "Calls that wait until a password can be hashed.",
            Box::new(|| password::waiting() as f64),
        )?))?;
        Ok(metrics)
    }
}
