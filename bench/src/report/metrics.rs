//! The order in which numbers are shown: what is done in a second, how long it takes, what it costs.

/// How names begin, in the order in which they are shown. Those with a longer one belong to it.
const BEGINNINGS: [&str; 33] = [
    "messages_per_second",
    "fill_messages",
    "drain_messages",
    "schedule_messages",
    "browse_messages",
    "reschedules",
    "recalls",
    "recall_by_filter",
    "all_received",
    "confirm_gap",
    "confirm",
    "end_to_end",
    "fill_confirm",
    "schedule_confirm",
    "lateness",
    "browse_page",
    "forecast",
    "reschedule",
    "recall",
    "node_restart",
    "cluster_restart_ready",
    "cluster_restart_confirm",
    "server_cpu",
    "client_cpu",
    "memory_idle",
    "memory_idle_anonymous",
    "memory_full",
    "memory_after",
    "memory_restarted",
    "memory_peak",
    "written",
    "publishes_failed",
    "received_again",
];
/// What the names of several numbers of one kind have in them, in the order in which they are shown.
pub const QUANTILES: [&str; 4] = ["p50", "p99", "p99.9", "max"];
/// The same of failovers.
pub const GAPS: [&str; 3] = ["shortest", "median", "longest"];

/// By which the numbers of a workload are sorted. Those that are not known come last, by their names.
pub fn rank(name: &str) -> (usize, usize, &str) {
    let beginnings = BEGINNINGS.iter().enumerate().filter(|(_, beginning)| name.starts_with(**beginning));
    let longest = beginnings.max_by_key(|(_, beginning)| beginning.len());
    let kind = longest.map_or(BEGINNINGS.len(), |(position, _)| position);
    let parts: Vec<&str> = name.split('_').collect();
    let quantile = QUANTILES.iter().chain(&GAPS).position(|quantile| parts.contains(quantile));
    (kind, quantile.unwrap_or(0), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_before_latencies_and_these_before_what_they_cost() {
        let mut names = [
            "written_bytes_per_node_and_byte",
            "unknown",
            "memory_peak_mib",
            "memory_idle_mib",
            "recalls_per_second",
            "recall_p50_ms",
            "server_cpu_s_per_1000",
            "confirm_max_ms",
            "confirm_p99.9_ms",
            "confirm_p99_ms",
            "messages_per_second",
        ];
        names.sort_by_key(|name| rank(name));
        let sorted = [
            "messages_per_second",
            "recalls_per_second",
            "confirm_p99_ms",
            "confirm_p99.9_ms",
            "confirm_max_ms",
            "recall_p50_ms",
            "server_cpu_s_per_1000",
            "memory_idle_mib",
            "memory_peak_mib",
            "written_bytes_per_node_and_byte",
            "unknown",
        ];
        assert_eq!(names, sorted);
    }
}
