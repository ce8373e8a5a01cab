//! What the operating system says of this process, by the names that Prometheus' own clients use. The collector that comes
//! with the Prometheus library counts whole seconds of processor time, too coarse for a rate over a scrape or two.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge};

/// Reads `/proc/self` at each scrape.
pub struct ProcessCollector {
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    open_files: IntGauge,
    cpu_seconds: Counter,
    start_seconds: Gauge,
}

impl ProcessCollector {
    /// Of this process.
    pub fn new() -> Result<ProcessCollector, prometheus::Error> {
        let start_seconds =
            Gauge::new("process_start_time_seconds", "When the process started, since the Unix epoch.")?;
        if let (Some(stat), Some(boot)) = (Stat::read(), boot_seconds()) {
            start_seconds.set(boot + stat.started_after_boot);
        }
        Ok(ProcessCollector {
            resident_bytes: IntGauge::new("process_resident_memory_bytes", "Resident memory of the process.")?,
            virtual_bytes: IntGauge::new("process_virtual_memory_bytes", "Virtual memory of the process.")?,
            open_files: IntGauge::new("process_open_fds", "Open file descriptors of the process.")?,
            cpu_seconds: Counter::new("process_cpu_seconds_total", "Processor time of the process, user and system.")?,
            start_seconds,
        })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut described = self.resident_bytes.desc();
        described.extend(self.virtual_bytes.desc());
        described.extend(self.open_files.desc());
        described.extend(self.cpu_seconds.desc());
        described.extend(self.start_seconds.desc());
        described
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(stat) = Stat::read() {
            let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
            self.resident_bytes.set(stat.resident_pages.saturating_mul(page));
            self.virtual_bytes.set(stat.virtual_bytes);
            // Two scrapes at a time may read it in turn: a counter does not go back.
            self.cpu_seconds.inc_by((stat.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Less the one that is open to read them.
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX) - 1);
        }
        let mut families = self.resident_bytes.collect();
        families.extend(self.virtual_bytes.collect());
        families.extend(self.open_files.collect());
        families.extend(self.cpu_seconds.collect());
        families.extend(self.start_seconds.collect());
        families
    }
}

/// What `/proc/self/stat` has of use.
struct Stat {
    cpu_seconds: f64,
    started_after_boot: f64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl Stat {
    fn read() -> Option<Stat> {
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?, rustix::param::clock_ticks_per_second() as f64)
    }

    fn parse(text: &str, ticks_per_second: f64) -> Option<Stat> {
        // The second field is the program's name in parentheses, which may itself contain some, and spaces.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // Fields are numbered from 1 in proc(5), and the third comes first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
            started_after_boot: field(22)? as f64 / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn this_process_tells_of_itself() {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::new().unwrap())).unwrap();
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1_500_000_000.0);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=24).map(|number| number.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b (c)) S {}", fields.join(" ")), 1.0).unwrap();
        assert_eq!((stat.cpu_seconds, stat.started_after_boot), (29.0, 22.0));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (23, 24));
    }
}
