//! Revising, browsing, forecasting.

use dwell_machine as machine;
use dwell_machine::limits::{BROWSE_PAGE_MAX, HORIZON_MS, HORIZONS_MAX, REVISE_HANDLES_MAX};
use dwell_proto::v1;
use dwell_proto::v1::new_time::Visible;
use dwell_proto::v1::target::By;

use super::{
    Checked, count, headers, invalid, name, namespace, optional_time, page_size, priority, time, under, within,
};

/// Certain messages of a queue.
#[derive(Debug, PartialEq)]
pub struct Named {
    /// The queue's name.
    pub queue: String,
    /// Which of its messages.
    pub by: By,
    /// Leased ones too.
    pub revoke: bool,
    /// By message id: only messages with greater sequences.
    pub after: u64,
}

/// The messages of a queue that match.
#[derive(Debug, PartialEq)]
pub struct Selected {
    /// The queue's name.
    pub queue: String,
    /// Which of its messages.
    pub filter: machine::Filter,
    /// Leased ones too.
    pub revoke: bool,
}

/// Names certain messages.
pub fn target(target: Option<v1::Target>) -> Checked<Named> {
    under("target", checked_target(target.unwrap_or_default()))
}

fn checked_target(target: v1::Target) -> Checked<Named> {
    name("queue", &target.queue)?;
    let Some(by) = target.by else { return invalid("by", "must be set: `sequences` or `message_id`") };
    match &by {
        By::Sequences(named) => count("sequences.sequences", named.sequences.len(), 1, REVISE_HANDLES_MAX)?,
        // A message id may hold anything, as when it was published.
        By::MessageId(id) if id.is_empty() => return invalid("message_id", "must have 1 to 255 bytes, not 0"),
        By::MessageId(id) => super::text("message_id", id)?,
    }
    Ok(Named { queue: target.queue, by, revoke: target.revoke, after: target.after })
}

/// Selects messages by a filter.
pub fn selection(selection: Option<v1::Selection>, now_ms: u64) -> Checked<Selected> {
    let selection = selection.unwrap_or_default();
    under("selection", name("queue", &selection.queue))?;
    let filter = under("selection.filter", filter(selection.filter.unwrap_or_default(), now_ms))?;
    Ok(Selected { queue: selection.queue, filter, revoke: selection.revoke })
}

fn filter(filter: v1::Filter, now_ms: u64) -> Checked<machine::Filter> {
    headers("headers", &filter.headers)?;
    let mut checked = machine::Filter {
        // Seconds in place of milliseconds would choose all messages, or none.
        due_from_ms: optional_time("due_from_ms", filter.due_from_ms, now_ms)?,
        due_before_ms: optional_time("due_before_ms", filter.due_before_ms, now_ms)?,
        priority_min: priority("priority_min", filter.priority_min)?,
        priority_max: filter.priority_max.map(|max| priority("priority_max", max)).transpose()?,
        headers: filter.headers,
        ..machine::Filter::default()
    };
    for wanted in filter.states {
        match state("states", wanted)? {
            machine::MessageState::Scheduled => checked.scheduled = true,
            machine::MessageState::Ready => checked.ready = true,
            machine::MessageState::Leased => checked.leased = true,
        }
    }
    Ok(checked)
}

fn state(field: &str, state: i32) -> Checked<machine::MessageState> {
    match v1::MessageState::try_from(state) {
        Ok(v1::MessageState::Scheduled) => Ok(machine::MessageState::Scheduled),
        Ok(v1::MessageState::Ready) => Ok(machine::MessageState::Ready),
        Ok(v1::MessageState::Leased) => Ok(machine::MessageState::Leased),
        Ok(v1::MessageState::Unspecified) | Err(_) => {
            invalid(field, format!("must be one of the states, 1 to 3, not {state}"))
        }
    }
}

/// Another due time.
pub fn new_time(time_given: Option<v1::NewTime>, now_ms: u64) -> Checked<machine::Reschedule> {
    let (mut delay_ms, mut deliver_at_ms) = (0, 0);
    match time_given.unwrap_or_default().visible {
        Some(Visible::DelayMs(delay)) => delay_ms = within("time.delay_ms", delay, 0, HORIZON_MS)?,
        Some(Visible::DeliverAtMs(at)) => deliver_at_ms = time("time.deliver_at_ms", at, now_ms)?,
        None => return invalid("time", "must be set: `delay_ms` or `deliver_at_ms`"),
    }
    Ok(machine::Reschedule { delay_ms, deliver_at_ms })
}

/// Checks a browse; the state to show and the size of the page.
pub fn browse(request: &v1::BrowseMessagesRequest) -> Checked<(machine::MessageState, usize)> {
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    Ok((state("state", request.state)?, page_size(request.page_size)?.min(BROWSE_PAGE_MAX)))
}

/// Checks a forecast; its horizons.
pub fn forecast(request: &v1::ForecastRequest) -> Checked<Vec<u64>> {
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    count("horizons_ms", request.horizons_ms.len(), 0, HORIZONS_MAX)?;
    let horizons = request.horizons_ms.iter().enumerate();
    horizons
        .map(|(position, horizon_ms)| within(&format!("horizons_ms[{position}]"), *horizon_ms, 0, HORIZON_MS))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn target_by(by: Option<By>) -> Result<Named, String> {
        target(Some(v1::Target { queue: "q".into(), by, revoke: true, after: 0 })).map_err(|error| error.to_string())
    }

    fn filtered(filter: v1::Filter) -> Result<machine::Filter, String> {
        let given = v1::Selection { queue: "q".into(), filter: Some(filter), revoke: false };
        selection(Some(given), NOW_MS).map(|selected| selected.filter).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_names_1_to_1000_sequences_or_an_id() {
        let sequences = |count| Some(By::Sequences(v1::Sequences { sequences: vec![1; count] }));
        assert_eq!(target_by(None).unwrap_err(), "`target.by` must be set: `sequences` or `message_id`");
        assert_eq!(target_by(sequences(0)).unwrap_err(), "`target.sequences.sequences` must be 1 to 1000, not 0");
        assert_eq!(target_by(sequences(1001)).unwrap_err(), "`target.sequences.sequences` must be 1 to 1000, not 1001");
        assert!(target_by(sequences(1000)).unwrap().revoke);
        let id = |length| Some(By::MessageId("i".repeat(length)));
        assert_eq!(target_by(id(0)).unwrap_err(), "`target.message_id` must have 1 to 255 bytes, not 0");
        assert_eq!(target_by(id(256)).unwrap_err(), "`target.message_id` must have at most 255 bytes, not 256");
        assert!(target_by(id(255)).is_ok());
        assert_eq!(target(None).unwrap_err().to_string(), "`target.queue` must have 1 to 255 bytes, not 0");
    }

    #[test]
    fn a_filter_takes_states_times_near_now_and_priorities_to_255() {
        let none = v1::Filter::default;
        let filter = filtered(v1::Filter { states: vec![1, 3], ..none() }).unwrap();
        assert_eq!((filter.scheduled, filter.ready, filter.leased), (true, false, true));
        assert_eq!(filtered(none()).unwrap(), machine::Filter::default());
        for (wrong, field) in [
            (v1::Filter { states: vec![0], ..none() }, "`selection.filter.states`"),
            (v1::Filter { states: vec![4], ..none() }, "`selection.filter.states`"),
            (v1::Filter { due_from_ms: Some(1_800_000_000), ..none() }, "`selection.filter.due_from_ms`"),
            (v1::Filter { due_before_ms: Some(0), ..none() }, "`selection.filter.due_before_ms`"),
            (v1::Filter { priority_min: 256, ..none() }, "`selection.filter.priority_min`"),
            (v1::Filter { priority_max: Some(256), ..none() }, "`selection.filter.priority_max`"),
        ] {
            let problem = filtered(wrong).unwrap_err();
            assert!(problem.starts_with(field), "{problem}");
        }
    }

    #[test]
    fn a_reschedule_has_a_delay_or_a_time() {
        let with = |visible| new_time(Some(v1::NewTime { visible }), NOW_MS).map_err(|error| error.to_string());
        assert_eq!(with(Some(Visible::DelayMs(5))).unwrap().delay_ms, 5);
        assert_eq!(with(None).unwrap_err(), "`time` must be set: `delay_ms` or `deliver_at_ms`");
        assert_eq!(with(Some(Visible::DelayMs(-1))).unwrap_err(), "`time.delay_ms` must be 0 to 315360000000, not -1");
        assert!(with(Some(Visible::DeliverAtMs(1_800_000_000))).unwrap_err().starts_with("`time.deliver_at_ms`"));
    }

    #[test]
    fn a_forecast_has_100_horizons_at_most_and_none_in_the_past() {
        let with = |horizons_ms| {
            let request = v1::ForecastRequest { queue: "q".into(), horizons_ms, ..Default::default() };
            forecast(&request).map_err(|error| error.to_string())
        };
        assert_eq!(with(vec![0, 60_000]), Ok(vec![0, 60_000]));
        assert_eq!(with(vec![1; 101]).unwrap_err(), "`horizons_ms` must be at most 100, not 101");
        assert_eq!(with(vec![1, -1]).unwrap_err(), "`horizons_ms[1]` must be 0 to 315360000000, not -1");
    }

    #[test]
    fn a_browse_shows_one_state() {
        let request = v1::BrowseMessagesRequest { queue: "q".into(), state: 2, ..Default::default() };
        assert_eq!(browse(&request), Ok((machine::MessageState::Ready, 100)));
        let request = v1::BrowseMessagesRequest { state: 0, ..request };
        assert_eq!(browse(&request).unwrap_err().to_string(), "`state` must be one of the states, 1 to 3, not 0");
    }
}
