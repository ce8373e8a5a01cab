//! What a pod's HTTP port says before its node serves it: that it is alive and not ready, why, and how far it has come.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use dwell_server::{ENROLMENT_PATH, ENROLMENT_STARTED};
use dwell_storage::enrolment::Phase;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::decision::Answer;

const EMPTY: &str = "empty\n";
const FOUNDING: &str = "founding\n";

/// What is said.
#[derive(Debug, Clone, Default)]
struct Said {
    phase: Option<Phase>,
    reason: String,
}

/// Serves the port as long as it lives.
pub struct Waiting {
    said: Arc<watch::Sender<Said>>,
    server: JoinHandle<()>,
}

impl Waiting {
    /// Begins.
    pub async fn listen(address: SocketAddr) -> std::io::Result<Waiting> {
        let listener = TcpListener::bind(address).await?;
        let said = Arc::new(watch::Sender::new(Said::default()));
        let (ready, enrolment) = (said.clone(), said.clone());
        let routes = Router::new()
            // Starting it anew would not help.
            .route("/healthz", get(async || "ok\n"))
            .route(
                "/readyz",
                get(async move || (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ready.borrow().reason))),
            )
            .route(ENROLMENT_PATH, get(async move || spell(enrolment.borrow().phase)));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the HTTP port is not served");
            }
        });
        Ok(Waiting { said, server })
    }

    /// Says how far this pod has come. What is said must be on disk.
    pub fn say(&self, phase: Option<Phase>, reason: &str) {
        let said = Said { phase, reason: reason.to_owned() };
        let before = self.said.send_replace(said);
        if before.reason != reason {
            tracing::info!("{reason}");
        }
    }

    /// Gives the port free.
    pub async fn end(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn spell(phase: Option<Phase>) -> &'static str {
    match phase {
        None => EMPTY,
        Some(Phase::Founding) => FOUNDING,
        Some(Phase::Started) => ENROLMENT_STARTED,
    }
}

/// Asks another pod. None if it does not answer, or not in these words.
pub async fn ask(http_address: &str) -> Option<Answer> {
    match dwell_local_cluster::http_get(http_address, ENROLMENT_PATH).await {
        Ok((200, body)) if body == EMPTY => Some(Answer::Empty),
        Ok((200, body)) if body == FOUNDING => Some(Answer::Founding),
        Ok((200, body)) if body == ENROLMENT_STARTED => Some(Answer::Started),
        Ok((code, body)) => {
            tracing::debug!(http_address, code, body, "not the answer of a pod");
            None
        }
        Err(error) => {
            tracing::debug!(error, "a pod does not answer");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiting_pod_is_alive_and_not_ready_and_says_how_far_it_is() {
        let free = (std::net::Ipv4Addr::LOCALHOST, dwell_local_cluster::free_ports(1).unwrap()[0]).into();
        let waiting = Waiting::listen(free).await.unwrap();
        let address = free.to_string();
        for (phase, answer) in
            [(None, Answer::Empty), (Some(Phase::Founding), Answer::Founding), (Some(Phase::Started), Answer::Started)]
        {
            waiting.say(phase, "waiting for the pods [1]");
            assert_eq!(ask(&address).await, Some(answer));
        }
        assert_eq!(dwell_local_cluster::http_get(&address, "/healthz").await.unwrap().0, 200);
        let not_ready = dwell_local_cluster::http_get(&address, "/readyz").await.unwrap();
        assert_eq!(not_ready, (503, "waiting for the pods [1]\n".to_owned()));
        waiting.end().await;
        assert_eq!(ask(&address).await, None);
        TcpListener::bind(free).await.unwrap();
    }
}
