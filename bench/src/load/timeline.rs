//! How far a load was, from moment to moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_load::Run;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// Between one look and the next.
const INTERVAL: Duration = Duration::from_millis(250);

/// How far a load was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the start of the load.
    pub seconds: f64,
    /// Messages confirmed so far.
    pub confirmed: u64,
    /// Messages received so far.
    pub received: u64,
}

/// Looks from time to time how far a load is.
pub struct Timeline {
    moments: Arc<Mutex<Vec<Moment>>>,
    looking: JoinHandle<()>,
    run: Arc<Run>,
    began: Instant,
}

impl Timeline {
    /// Begins to look, at the start of the load.
    pub fn start(run: Arc<Run>) -> Timeline {
        let (moments, began) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let (watched, noted) = (run.clone(), moments.clone());
        let looking = tokio::spawn(async move {
            let mut tick = tokio::time::interval(INTERVAL);
            loop {
                tick.tick().await;
                noted.lock().push(moment(&watched, began));
            }
        });
        Timeline { moments, looking, run, began }
    }

    /// Looks a last time, and answers what was seen.
    pub fn finish(self) -> Vec<Moment> {
        self.looking.abort();
        let mut moments = std::mem::take(&mut *self.moments.lock());
        moments.push(moment(&self.run, self.began));
        moments
    }
}

fn moment(run: &Run, began: Instant) -> Moment {
    let progress = run.progress();
    Moment { seconds: began.elapsed().as_secs_f64(), confirmed: progress.confirmed, received: progress.received }
}
