//! Collects what was not answered as documented, so that one run shows all of it.

use std::fmt::Debug;

use dwell_proto::v1::Failure;
use tonic::{Code, Status};

/// The checks made so far.
#[derive(Default)]
pub struct Checks {
    /// Which node is being asked.
    pub target: &'static str,
    made: usize,
    failed: Vec<String>,
}

impl Checks {
    /// The call must have been refused with this status, in words that name the field or thing.
    pub fn refused<T: Debug>(&mut self, what: &str, result: Result<T, Status>, code: Code, names: &str) {
        match result {
            Err(status) => self.is(
                status.code() == code && status.message().contains(names),
                what,
                format!("expected {code:?} naming `{names}`, got {:?}: {}", status.code(), status.message()),
            ),
            Ok(response) => {
                let mut shown = format!("{response:?}");
                shown.truncate(300);
                self.is(false, what, format!("expected {code:?} naming `{names}`, and it succeeded: {shown}"));
            }
        }
    }

    /// The same for a refusal inside a stream that goes on.
    pub fn refused_within(&mut self, what: &str, failure: Option<Failure>, code: Code, names: &str) {
        let result = match failure {
            Some(failure) => Err(Status::new(Code::from_i32(failure.code), failure.message)),
            None => Ok("no refusal"),
        };
        self.refused(what, result, code, names);
    }

    /// Something must be equal to what is expected.
    pub fn equal<T: Debug + PartialEq>(&mut self, what: &str, found: T, expected: T) {
        let problem = format!("expected {expected:?}, found {found:?}");
        self.is(found == expected, what, problem);
    }

    fn is(&mut self, right: bool, what: &str, problem: String) {
        self.made += 1;
        if !right {
            self.failed.push(format!("{}: {what}: {problem}", self.target));
        }
    }

    /// Fails if any check did.
    pub fn report(&self) {
        println!("{} of {} checks hold", self.made - self.failed.len(), self.made);
        assert!(self.failed.is_empty(), "not as documented:\n{}", self.failed.join("\n"));
        assert!(self.made > 200, "only {} checks were made", self.made);
    }
}

/// Names that are none, with the reason: empty, too long, with a control character.
pub fn wrong_names() -> [(&'static str, String); 3] {
    [("empty", String::new()), ("300 characters", "q".repeat(300)), ("control character", "a\nb".to_owned())]
}
