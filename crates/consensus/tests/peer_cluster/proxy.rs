//! What lies between a node and the others: it passes everything on, in order, after a delay, at some bandwidth,
//! and can be cut.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How good a line is.
#[derive(Clone, Copy)]
pub struct Line {
    /// One way.
    pub delay: Duration,
    /// Of each connection and direction.
    pub bytes_per_second: f64,
}

impl Line {
    /// Hides nothing.
    pub const PERFECT: Line = Line { delay: Duration::ZERO, bytes_per_second: f64::INFINITY };
}

pub struct Proxy {
    pub address: String,
    target: String,
    line: Line,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on an address of its own.
    pub async fn start(target: String, line: Line) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut proxy = Self { address, target, line, running: None };
        proxy.run(listener);
        proxy
    }

    /// Breaks all connections, and lets nobody connect.
    pub async fn cut(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }

    /// Lets everybody connect again.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.run(listener);
    }

    fn run(&mut self, listener: TcpListener) {
        let (target, line) = (self.target.clone(), self.line);
        self.running = Some(tokio::spawn(async move {
            // Dropped with this task, and their connections with them.
            let mut connections = JoinSet::new();
            loop {
                let (inbound, _) = listener.accept().await.unwrap();
                connections.spawn(connect(inbound, target.clone(), line));
            }
        }));
    }
}

async fn connect(inbound: TcpStream, target: String, line: Line) -> io::Result<()> {
    let outbound = TcpStream::connect(target).await?;
    inbound.set_nodelay(true)?;
    outbound.set_nodelay(true)?;
    let (inbound_read, inbound_write) = inbound.into_split();
    let (outbound_read, outbound_write) = outbound.into_split();
    tokio::try_join!(pass(inbound_read, outbound_write, line), pass(outbound_read, inbound_write, line))?;
    Ok(())
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: Line) -> io::Result<()> {
    let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 || late.send((Instant::now() + line.delay, buffer[..read].to_vec())).is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            to.write_all(&bytes).await?;
            tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / line.bytes_per_second)).await;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}
