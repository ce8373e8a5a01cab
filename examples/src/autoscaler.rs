//! Workers are started before the work arrives: the queue says how much is due soon.

use std::time::Duration;

use anyhow::ensure;
use dwell_client::{Client, Forecast, PublishMessage, QueueSettings, Selection};

const QUEUE: &str = "renderings";
/// Starting a machine takes less than this.
const AHEAD: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(3600);
/// What one worker does in that time.
const TASKS_PER_WORKER: u64 = 10;

/// What the autoscaler saw and decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Ready, leased, or due within [`AHEAD`].
    pub soon: u64,
    /// Due within [`LATER`].
    pub later: u64,
    /// How many workers there should be.
    pub workers: u64,
}

/// Watches a queue: empty, then with much planned, then with most of that called off.
pub async fn run(server: &str) -> anyhow::Result<Vec<Decision>> {
    let client = Client::connect([server])?;
    // What an earlier run left.
    let _ = client.delete_queue(QUEUE, false, false).await;
    client.declare_queue(QUEUE, QueueSettings::default()).await?;
    let mut decisions = vec![decide(&client).await?];

    // 120 tasks in half a minute, 500 in half an hour.
    plan(&client, 120, Duration::from_secs(30), "burst").await?;
    plan(&client, 500, Duration::from_secs(1800), "night").await?;
    decisions.push(decide(&client).await?);

    let recalled = client.recall_matching(Selection::all(QUEUE).header("plan", "burst")).await?.finish().await?;
    println!("the burst is called off: {} tasks recalled", recalled.revised);
    decisions.push(decide(&client).await?);

    ensure!(
        decisions
            == [
                Decision { soon: 0, later: 0, workers: 1 },
                Decision { soon: 120, later: 620, workers: 12 },
                Decision { soon: 0, later: 500, workers: 1 },
            ],
        "{decisions:?}"
    );
    client.delete_queue(QUEUE, false, false).await?;
    Ok(decisions)
}

/// Reads the forecast: that costs the server as little with a million tasks as with none.
async fn decide(client: &Client) -> anyhow::Result<Decision> {
    let forecast = client.forecast(QUEUE, &[AHEAD, LATER]).await?;
    let due = |horizon: usize| forecast.due.get(horizon).map_or(0, |due| due.messages);
    let soon = waiting(&forecast) + due(0);
    // One is always there.
    let workers = soon.div_ceil(TASKS_PER_WORKER).max(1);
    println!("{soon} tasks within {AHEAD:?}, {} within {LATER:?}: {workers} workers", due(1));
    Ok(Decision { soon, later: due(1), workers })
}

fn waiting(forecast: &Forecast) -> u64 {
    forecast.counts.map_or(0, |counts| counts.ready + counts.leased)
}

async fn plan(client: &Client, tasks: usize, delay: Duration, plan: &str) -> anyhow::Result<()> {
    let task = |number| PublishMessage::new(QUEUE, format!("{plan} {number}")).header("plan", plan).delay(delay);
    client.publish((0..tasks).map(task).collect()).await?;
    println!("{tasks} tasks are planned in {delay:?}");
    Ok(())
}
