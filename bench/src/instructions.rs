//! Against regress: counted instructions of the hot paths, beside figures that are checked in. Unlike times, they are
//! the same on a machine that has much else to do.

mod broker;
mod callgrind;
mod entries;
mod figures;
mod hot_path;
mod machine;
mod table;

use anyhow::bail;

pub use self::hot_path::HotPath;

use self::callgrind::Callgrind;
use self::figures::Figures;
use crate::arguments::{InstructedArguments, InstructionsArguments};

/// Every path is measured by two runs that differ only in how often they do its work: what a process does besides,
/// from loading to leaving, goes out of the difference.
const ROUNDS: [u64; 2] = [1, 3];
const ROUNDS_MAX: u64 = ROUNDS[1];

/// Counts, and compares with the figures of the file or replaces them.
pub async fn run(arguments: &InstructionsArguments) -> anyhow::Result<()> {
    let mut figures = Figures::read(&arguments.figures)?;
    let callgrind = Callgrind::new(arguments.profiles.clone())?;
    let mut differences = Vec::new();
    println!("{}", table::HEADINGS);
    for path in arguments.chosen() {
        let measured = measure(&callgrind, path).await?;
        let comparison = figures.compare(path, measured);
        println!("{}", table::row(path, &comparison));
        differences.extend(comparison.problem(path));
        if arguments.update {
            figures.set(path, measured);
        }
    }
    if arguments.update {
        return figures.write(&arguments.figures);
    }
    match differences.is_empty() {
        true => Ok(()),
        false => bail!("{}\n{}", differences.join("\n"), figures.advice()),
    }
}

/// Instructions for each message.
async fn measure(callgrind: &Callgrind, path: HotPath) -> anyhow::Result<u64> {
    let [few, many] = ROUNDS;
    let fewer = callgrind.count(path, few).await?;
    let more = callgrind.count(path, many).await?;
    per_message(fewer, more, (many - few) * path.messages_per_round())
}

fn per_message(fewer: u64, more: u64, messages: u64) -> anyhow::Result<u64> {
    match more.checked_sub(fewer) {
        Some(difference) => Ok(difference / messages),
        None => bail!("{ROUNDS_MAX} rounds took {more} instructions, and fewer rounds {fewer}: nothing was counted"),
    }
}

/// What callgrind watches: a path's work, so many rounds of it.
pub fn instructed(arguments: &InstructedArguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.rounds <= ROUNDS_MAX, "at most {ROUNDS_MAX} rounds are prepared");
    arguments.path.run(arguments.rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_runs_have_in_common_does_not_count() {
        assert_eq!(per_message(1_000_000 + 500, 1_000_000 + 1500, 10).unwrap(), 100);
        assert!(per_message(2, 1, 10).is_err());
    }
}
