//! Is the process behind an address dead?

use std::io::{self, ErrorKind};
use std::time::Duration;

use dwell_transport::{Connection, Transport};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

/// A process on the same network accepts within a millisecond, and the system of one that is dead refuses as
/// fast.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// A process that is about to end may close some connections a moment before its listener, and accept new ones
/// meanwhile. So the probe's own connection is kept for so long: when it breaks, the process is looked at again.
const WATCH: Duration = Duration::from_millis(500);

/// Most visits to a process that ends every one of them before it says a word, as the system does for a process
/// that dies while it is visited, and a proxy for one that is dead for good.
const SILENT_VISITS_MAX: u32 = 5;

/// Most visits of any kind.
const VISITS_MAX: u32 = 20;

const PAUSE: Duration = Duration::from_millis(5);

/// What fresh connections tell of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its system is there, and it is not.
    Dead,
    /// It lives, or there is no telling.
    Unclear,
}

/// Connects to host:port, where an HTTP/2 server listens or did: such a server speaks first.
pub(super) async fn probe(transport: &dyn Transport, address: &str) -> Verdict {
    let mut silent = 0;
    for _ in 0..VISITS_MAX {
        match visit(transport, address).await {
            Visit::Refused => return Verdict::Dead,
            Visit::Ended { spoken: false } if silent + 1 == SILENT_VISITS_MAX => return Verdict::Dead,
            Visit::Ended { spoken: false } => silent += 1,
            Visit::Ended { spoken: true } => silent = 0,
            Visit::Stands => return Verdict::Unclear,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Verdict::Unclear
}

enum Visit {
    /// Nobody listens.
    Refused,
    /// Accepted, and closed from there, after a word or without.
    Ended { spoken: bool },
    /// The connection stands, or its fate tells nothing of the process.
    Stands,
}

async fn visit(transport: &dyn Transport, address: &str) -> Visit {
    let connection = match timeout(CONNECT_TIMEOUT, transport.connect(address.to_owned())).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Visit::Refused,
        Ok(Err(error)) if is_closed(&error) => return Visit::Ended { spoken: false },
        Ok(Err(_)) | Err(_) => return Visit::Stands,
    };
    let mut spoken = false;
    match timeout_at(Instant::now() + WATCH, listen(connection, &mut spoken)).await {
        Ok(Ok(())) => Visit::Ended { spoken },
        Ok(Err(error)) if is_closed(&error) => Visit::Ended { spoken },
        Ok(Err(_)) | Err(_) => Visit::Stands,
    }
}

async fn listen(mut connection: Connection, spoken: &mut bool) -> io::Result<()> {
    let mut buffer = [0; 256];
    while connection.read(&mut buffer).await? > 0 {
        *spoken = true;
    }
    Ok(())
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use dwell_transport::Tcp;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn where_nobody_listens_the_process_is_dead() {
        let (listener, address) = listener().await;
        drop(listener);
        assert_eq!(probe(&Tcp, &address).await, Verdict::Dead);
    }

    #[tokio::test]
    async fn a_process_that_speaks_is_not_dead() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(b"settings").await.unwrap();
            connection.read_to_end(&mut Vec::new()).await
        });
        assert_eq!(probe(&Tcp, &address).await, Verdict::Unclear);
        server.abort();
    }

    #[tokio::test]
    async fn a_process_that_speaks_and_then_dies_is_dead() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(b"settings").await.unwrap();
        });
        assert_eq!(probe(&Tcp, &address).await, Verdict::Dead);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_always_speaks_and_hangs_up_is_not_dead() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                connection.write_all(b"settings").await.unwrap();
            }
        });
        assert_eq!(probe(&Tcp, &address).await, Verdict::Unclear);
        server.abort();
    }

    #[tokio::test]
    async fn a_process_that_is_stopped_is_not_dead() {
        // Its system accepts; it never does.
        let (_listener, address) = listener().await;
        assert_eq!(probe(&Tcp, &address).await, Verdict::Unclear);
    }

    #[tokio::test]
    async fn a_proxy_that_always_closes_stands_before_a_dead_process() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
            }
        });
        assert_eq!(probe(&Tcp, &address).await, Verdict::Dead);
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_does_not_resolve_tells_nothing() {
        assert_eq!(probe(&Tcp, "no-such-host.invalid:7601").await, Verdict::Unclear);
    }
}
