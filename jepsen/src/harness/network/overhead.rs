//! What the switch costs.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::error::{HarnessError, system_error};
use crate::harness::namespace::NamespaceThread;

const ROUND_TRIPS: u32 = 500;
const BULK_BYTES: usize = 64 * 1024 * 1024;
const PIECE: usize = 64 * 1024;

/// What the switch costs, measured between the clients and one node while nothing else happens.
#[derive(Debug, Clone, Copy)]
pub struct Overhead {
    /// Median time for one byte there and back over TCP.
    pub round_trip: Duration,
    /// Bytes a second over one TCP connection.
    pub bytes_per_second: f64,
}

pub(super) fn measure(server: &NamespaceThread, address: Ipv4Addr) -> Result<Overhead, HarnessError> {
    let error = || system_error("measure the network");
    let listener = server.execute(move || TcpListener::bind((address, 0)))?.map_err(error())?;
    let target = listener.local_addr().map_err(error())?;
    // A socket stays in the namespace where it was made, whichever thread uses it.
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        for _ in 0..ROUND_TRIPS {
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
        }
        let mut piece = vec![0; PIECE];
        for _ in 0..BULK_BYTES / PIECE {
            stream.read_exact(&mut piece)?;
        }
        stream.write_all(&byte)
    });
    let measured = exchange(target).map_err(error());
    let echoed = echo.join().map_err(|_| HarnessError::Invalid("the measurement broke off".to_owned()))?;
    let measured = measured?;
    echoed.map_err(error())?;
    Ok(measured)
}

fn exchange(target: std::net::SocketAddr) -> std::io::Result<Overhead> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    let mut byte = [7];
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let start = Instant::now();
    let piece = vec![0; PIECE];
    for _ in 0..BULK_BYTES / PIECE {
        stream.write_all(&piece)?;
    }
    stream.read_exact(&mut byte)?;
    let bytes_per_second = BULK_BYTES as f64 / start.elapsed().as_secs_f64();
    Ok(Overhead { round_trip: times[times.len() / 2], bytes_per_second })
}
