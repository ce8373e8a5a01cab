//! The switch: reads IP packets from the places' tunnel devices, and writes each to the device of the place that it
//! is for, or not, or later.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::harness::error::{HarnessError, system_error};
use crate::harness::network::rule::{Judge, LinkRule, Verdict};

/// Largest packet. Much larger than Ethernet's: a packet costs the same whatever its size, and the switch shares the
/// processor with the servers.
pub(super) const MTU: u16 = 9000;
/// Packets that may wait on a delayed link; further ones are dropped, as a router's buffer would.
const QUEUE_PACKETS_MAX: usize = 4096;

/// Packets of one link so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkTraffic {
    /// Delivered.
    pub passed: u64,
    /// Dropped by its rule, or because too many were waiting.
    pub dropped: u64,
}

#[derive(Debug)]
struct Link {
    judge: Mutex<Judge>,
    delayed: mpsc::Sender<DelayedPacket>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct DelayedPacket {
    due: Instant,
    packet: Box<[u8]>,
}

/// All links, by sender and receiver.
#[derive(Debug)]
struct Links {
    places: usize,
    links: Vec<Link>,
}

impl Links {
    fn get(&self, from: usize, to: usize) -> Option<&Link> {
        (from < self.places && to < self.places).then(|| &self.links[from * self.places + to])
    }
}

/// Forwards packets in its own thread until it is dropped.
#[derive(Debug)]
pub(super) struct Switch {
    links: Arc<Links>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Makes a tunnel device for each place, and forwards between them. `place_of` finds the place that a packet is
    /// for by its address.
    pub(super) fn start(
        device_names: &[String],
        seed: u64,
        place_of: fn(Ipv4Addr) -> Option<usize>,
    ) -> Result<Switch, HarnessError> {
        let places = device_names.len();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system_error("start the switch's executor"))?;
        let entered = runtime.enter();
        let devices: Vec<Arc<AsyncDevice>> = device_names
            .iter()
            .map(|name| {
                let device = DeviceBuilder::new().name(name).mtu(MTU).enable(false).build_async();
                device.map(Arc::new).map_err(system_error(format!("make the tunnel device {name}")))
            })
            .collect::<Result<_, _>>()?;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..places * places).map(|_| mpsc::channel(QUEUE_PACKETS_MAX)).unzip();
        let links = senders.into_iter().enumerate().map(|(index, delayed)| Link {
            judge: Mutex::new(Judge::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64))),
            delayed,
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let links = Arc::new(Links { places, links: links.collect() });
        for (from, device) in devices.iter().enumerate() {
            runtime.spawn(forward(from, device.clone(), devices.clone(), links.clone(), place_of));
        }
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (from, to) = (index / places, index % places);
            runtime.spawn(deliver_late(receiver, devices[to].clone(), links.clone(), (from, to)));
        }
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        // One thread for all packets: it neither waits for the workload's tasks nor needs any lock to be fair.
        let thread = std::thread::Builder::new().name("switch".to_owned()).spawn(move || {
            // Either way, the switch is not wanted any more.
            let _ = runtime.block_on(stopped);
        });
        let thread = thread.map_err(system_error("start the switch's thread"))?;
        Ok(Switch { links, stop: Some(stop), thread: Some(thread) })
    }

    /// Changes the rule of a link.
    pub(super) fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut LinkRule)) {
        if let Some(link) = self.links.get(from, to) {
            change(&mut link.judge.lock().rule);
        }
    }

    /// What went over a link so far.
    pub(super) fn traffic(&self, from: usize, to: usize) -> LinkTraffic {
        self.links.get(from, to).map_or_else(LinkTraffic::default, |link| LinkTraffic {
            passed: link.passed.load(Ordering::Relaxed),
            dropped: link.dropped.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked only if a forwarding task did, which was reported then.
            let _ = thread.join();
        }
    }
}

async fn forward(
    from: usize,
    device: Arc<AsyncDevice>,
    devices: Vec<Arc<AsyncDevice>>,
    links: Arc<Links>,
    place_of: fn(Ipv4Addr) -> Option<usize>,
) {
    let mut buffer = vec![0; usize::from(MTU) + 64];
    loop {
        let length = match device.recv(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                // A device that is down or just being moved says so by an error; it may come up.
                tracing::debug!(from, %error, "cannot read from a tunnel device");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let packet = &buffer[..length];
        let Some(to) = destination(packet).and_then(place_of) else { continue };
        let Some(link) = links.get(from, to) else { continue };
        let verdict = link.judge.lock().judge();
        match verdict {
            Verdict::Pass => send(link, &devices[to], packet).await,
            Verdict::Drop => count(&link.dropped),
            Verdict::Delay(delay) => {
                let late = DelayedPacket { due: Instant::now() + delay, packet: packet.into() };
                if link.delayed.try_send(late).is_err() {
                    count(&link.dropped);
                }
            }
        }
    }
}

/// Delivers the packets of one link when they are due, in the order in which they were sent.
async fn deliver_late(
    mut packets: mpsc::Receiver<DelayedPacket>,
    device: Arc<AsyncDevice>,
    links: Arc<Links>,
    (from, to): (usize, usize),
) {
    let Some(link) = links.get(from, to) else { return };
    while let Some(DelayedPacket { due, packet }) = packets.recv().await {
        tokio::time::sleep_until(due).await;
        // What is on its way when the link is cut is lost.
        if link.judge.lock().rule.cut {
            count(&link.dropped);
        } else {
            send(link, &device, &packet).await;
        }
    }
}

async fn send(link: &Link, device: &AsyncDevice, packet: &[u8]) {
    match device.send(packet).await {
        Ok(_) => count(&link.passed),
        Err(error) => {
            tracing::debug!(%error, "cannot write to a tunnel device");
            count(&link.dropped);
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where an IPv4 packet is going.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| Ipv4Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_destination_of_ipv4_packets_only() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 1, 2, 3)));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&packet[..12]), None);
    }
}
