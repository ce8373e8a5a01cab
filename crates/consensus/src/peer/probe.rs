//! Is the process behind an address dead?

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A process on the same network answers within a millisecond, and so does the system of one that is dead.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// An HTTP/2 server speaks first. One that accepts and says nothing is at least not gone.
const GREETING_TIMEOUT: Duration = Duration::from_millis(100);

/// While a process dies, its connections may close a moment before its listener does: then a new connection
/// is accepted by the system, and reset. Only when this repeats is it the answer; a proxy before a process
/// that is dead answers so for good.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(5);

/// What a fresh connection tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its system is there, and it is not.
    Dead,
    /// It lives, or there is no telling.
    Unclear,
}

/// Connects to host:port.
pub(super) async fn probe(address: &str) -> Verdict {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match greeting(address).await {
            Greeting::Refused => return Verdict::Dead,
            Greeting::Closed => {}
            Greeting::Spoken | Greeting::Nothing => return Verdict::Unclear,
        }
    }
    Verdict::Dead
}

enum Greeting {
    /// Nobody listens.
    Refused,
    /// Accepted and closed without a byte.
    Closed,
    /// A byte came.
    Spoken,
    /// No answer, or one that tells nothing of the process.
    Nothing,
}

async fn greeting(address: &str) -> Greeting {
    let mut connection = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return Greeting::Nothing,
    };
    let mut byte = [0];
    match tokio::time::timeout(GREETING_TIMEOUT, connection.read(&mut byte)).await {
        Ok(Ok(0)) => Greeting::Closed,
        Ok(Ok(_)) => Greeting::Spoken,
        Ok(Err(error)) => failed(&error),
        Err(_) => Greeting::Nothing,
    }
}

fn failed(error: &io::Error) -> Greeting {
    match error.kind() {
        ErrorKind::ConnectionRefused => Greeting::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Greeting::Closed,
        _ => Greeting::Nothing,
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(probe(&address).await, Verdict::Dead);
    }

    #[tokio::test]
    async fn a_process_that_speaks_is_not_dead() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(b"settings").await.unwrap();
            connection.read_to_end(&mut Vec::new()).await
        });
        assert_eq!(probe(&address).await, Verdict::Unclear);
        server.abort();
    }

    #[tokio::test]
    async fn a_process_that_is_stopped_is_not_dead() {
        // Its system accepts; it never does.
        let (_listener, address) = listener().await;
        assert_eq!(probe(&address).await, Verdict::Unclear);
    }

    #[tokio::test]
    async fn a_proxy_that_always_closes_stands_before_a_dead_process() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
            }
        });
        assert_eq!(probe(&address).await, Verdict::Dead);
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_does_not_resolve_tells_nothing() {
        assert_eq!(probe("no-such-host.invalid:7601").await, Verdict::Unclear);
    }
}
