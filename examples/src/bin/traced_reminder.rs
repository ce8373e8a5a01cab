//! Runs [`dwell_examples::traced_reminder`] against the server that the command line names.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:7600".into());
    dwell_examples::traced_reminder::run(&server).await?;
    Ok(())
}
