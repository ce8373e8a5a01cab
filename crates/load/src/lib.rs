//! The load generator: publishes and consumes as a [`LoadSpec`] says, measures, and accounts for every message, so that
//! one that is lost, early or doubled is found. It reaches the system under test by a [`Driver`]; Dwell's is here.
//!
//! ```text
//! prepare(driver, spec) ──► Prepared: producers and consumers are open ──► make() ──► Made: all has come
//!                                                                                    ──► close() ──► LoadReport
//! ```

mod consuming;
mod driver;
mod dwell;
mod identity;
mod ledger;
mod measurements;
mod producing;
mod report;
mod run;
mod schedule;
mod spec;

pub use crate::driver::{CONSUMER_CONNECTIONS, Consumer, Delivery, Driver, Producer};
pub use crate::dwell::DwellDriver;
pub use crate::identity::IDENTITY_BYTES;
pub use crate::measurements::{Latencies, Percentiles};
pub use crate::report::LoadReport;
pub use crate::run::{Made, Prepared, Progress, Run, prepare};
pub use crate::schedule::now_us;
pub use crate::spec::{Consume, Due, LoadSpec, Produce, Until};
