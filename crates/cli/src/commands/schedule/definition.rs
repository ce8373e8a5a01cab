//! When a schedule is due, on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};
use dwell_client::ScheduleDefinition;

use crate::times::{parse_duration, parse_time_ms};

/// When it is due. One of --cron, --every and --at is needed.
#[derive(Debug, Args)]
pub struct DefinitionArguments {
    #[command(flatten)]
    recurrence: RecurrenceArguments,
    /// The zone of the cron expression's clock, such as Europe/Vienna [default: UTC]
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["every", "at"])]
    time_zone: Option<String>,
    /// A time at which an interval is due; the others follow [default: the start, or the declaration]
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    #[arg(conflicts_with_all = ["cron", "at"])]
    anchor: Option<i64>,
    /// Not due before this
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    start: Option<i64>,
    /// Not due at or after this
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    end: Option<i64>,
    /// Fire up to so much later, always the same for the same due time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    jitter: Option<Duration>,
    /// What becomes of due times that passed while no node could fire them [default: once]
    #[arg(long, value_enum)]
    #[arg(requires_if("all", "misfires_max"))]
    misfire: Option<MisfireArgument>,
    /// With --misfire all: how many fire at most, 1 to 1000
    #[arg(long, value_name = "TIMES", requires = "misfire")]
    misfires_max: Option<u32>,
    /// A due time handled later than this is missed [server's default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    misfire_after: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RecurrenceArguments {
    /// Minute, hour, day of month, month, day of week; or six fields, with the second in front
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Due at regular intervals: 100ms to ten years
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,
    /// Due at this time; may be given several times
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    at: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MisfireArgument {
    /// They are skipped
    Skip,
    /// The first one fires
    Once,
    /// They fire, the oldest first
    All,
}

impl DefinitionArguments {
    /// The definition, without a message.
    pub fn definition(&self) -> ScheduleDefinition {
        let recurrence = &self.recurrence;
        let mut definition = match (&recurrence.cron, recurrence.every) {
            (Some(expression), _) => ScheduleDefinition::cron(expression),
            (None, Some(every)) => ScheduleDefinition::every(every),
            (None, None) => ScheduleDefinition::dates_ms(recurrence.at.iter().copied()),
        };
        if let Some(time_zone) = &self.time_zone {
            definition = definition.time_zone(time_zone);
        }
        if let Some(at_ms) = self.anchor {
            definition = definition.anchor_ms(at_ms);
        }
        if let Some(at_ms) = self.start {
            definition = definition.start_at_ms(at_ms);
        }
        if let Some(at_ms) = self.end {
            definition = definition.end_at_ms(at_ms);
        }
        if let Some(jitter) = self.jitter {
            definition = definition.jitter(jitter);
        }
        if let Some(after) = self.misfire_after {
            definition = definition.misfire_after(after);
        }
        match self.misfire {
            None => definition,
            Some(MisfireArgument::Skip) => definition.skip_missed(),
            Some(MisfireArgument::Once) => definition.fire_missed_once(),
            Some(MisfireArgument::All) => definition.fire_all_missed(self.misfires_max.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        definition: DefinitionArguments,
    }

    fn parse(words: &[&str]) -> Result<ScheduleDefinition, clap::Error> {
        let line = Line::try_parse_from(std::iter::once(&"line").chain(words))?;
        Ok(line.definition.definition())
    }

    #[test]
    fn a_schedule_is_due_in_one_way() {
        let cron = ScheduleDefinition::cron("30 2 * * *").time_zone("Europe/Vienna");
        assert_eq!(parse(&["--cron", "30 2 * * *", "--time-zone", "Europe/Vienna"]).unwrap(), cron);
        let every = ScheduleDefinition::every(Duration::from_secs(60)).anchor_ms(5);
        assert_eq!(parse(&["--every", "1m", "--anchor", "5"]).unwrap(), every);
        assert_eq!(parse(&["--at", "9", "--at", "7"]).unwrap(), ScheduleDefinition::dates_ms([7, 9]));
        assert!(parse(&[]).is_err());
        assert!(parse(&["--every", "1m", "--at", "9"]).is_err());
        assert!(parse(&["--every", "1m", "--time-zone", "UTC"]).is_err());
    }

    #[test]
    fn to_catch_up_says_how_far() {
        let missed = ScheduleDefinition::every(Duration::from_secs(60)).fire_all_missed(5);
        assert_eq!(parse(&["--every", "1m", "--misfire", "all", "--misfires-max", "5"]).unwrap(), missed);
        assert!(parse(&["--every", "1m", "--misfire", "all"]).is_err());
        assert!(parse(&["--every", "1m", "--misfire", "skip"]).is_ok());
    }
}
