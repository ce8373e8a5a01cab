//! The service for clients: an address behind which each new connection goes to some pod that is ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::chart::Chart;
use crate::kubelet::{Condition, Pod};

#[derive(Default)]
struct Endpoints {
    pods: Mutex<BTreeMap<u32, watch::Receiver<Condition>>>,
    /// Connections to each pod.
    connections: Mutex<BTreeMap<u32, u64>>,
    /// Connections that could not be given to anybody.
    refused: AtomicU64,
}

/// A running service.
pub struct Service {
    endpoints: Arc<Endpoints>,
    /// Where clients connect to.
    pub address: String,
}

impl Service {
    pub async fn start(chart: &Arc<Chart>) -> Service {
        let address = format!("{}:{}", chart.service_host(), chart.port("client"));
        let listener = TcpListener::bind(&address).await.unwrap();
        let endpoints = Arc::new(Endpoints::default());
        tokio::spawn(serve(listener, endpoints.clone(), chart.clone()));
        Service { endpoints, address }
    }

    /// Goes by this pod's readiness from now on.
    pub fn add(&self, pod: &Pod) {
        self.endpoints.pods.lock().insert(pod.ordinal, pod.watch());
    }

    /// A pod that is deleted gets no new connections, ready or not.
    pub fn withdraw(&self, ordinal: u32) {
        self.endpoints.pods.lock().remove(&ordinal);
    }

    /// Connections that this pod was given.
    pub fn connections(&self, ordinal: u32) -> u64 {
        self.endpoints.connections.lock().get(&ordinal).copied().unwrap_or(0)
    }

    /// Connections for which no pod was ready, or which the pod did not take.
    pub fn refused(&self) -> u64 {
        self.endpoints.refused.load(Ordering::Relaxed)
    }
}

impl Endpoints {
    fn choose(&self) -> Option<u32> {
        let pods = self.pods.lock();
        let ready: Vec<u32> =
            pods.iter().filter(|(_, condition)| condition.borrow().is_ready).map(|(ordinal, _)| *ordinal).collect();
        (!ready.is_empty()).then(|| ready[rand::random_range(0..ready.len())])
    }
}

async fn serve(listener: TcpListener, endpoints: Arc<Endpoints>, chart: Arc<Chart>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(ordinal) = endpoints.choose() else {
            endpoints.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        *endpoints.connections.lock().entry(ordinal).or_default() += 1;
        let (endpoints, address) = (endpoints.clone(), format!("{}:{}", chart.host(ordinal), chart.port("client")));
        tokio::spawn(async move {
            match TcpStream::connect(&address).await {
                Ok(mut pod) => drop(tokio::io::copy_bidirectional(&mut client, &mut pod).await),
                Err(error) => {
                    println!("the service sent a client to pod {ordinal}, which did not take it: {error}");
                    endpoints.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
}
