//! Since which format there is each command: the one place where that is declared.
//!
//! A node that comes upon a command that it does not know stops, since it must not skip it. So a leader proposes none
//! before all members are known to understand it. Who adds a command, or a field to one that older nodes must not
//! overlook, raises [`COMMAND_FORMAT`], and declares the new number here.

use super::Command;
use crate::machine::Machine;

/// The newest format of commands that this node understands, and announces to the others.
pub const COMMAND_FORMAT: u32 = 3;

/// What nodes understand that announce nothing: those from before there were announcements.
pub const COMMAND_FORMAT_UNANNOUNCED: u32 = 1;

impl Command {
    /// The format that a node must understand in order to apply this command.
    pub fn format(&self) -> u32 {
        match self {
            Command::DeclareQueue(_)
            | Command::DeleteQueue(_)
            | Command::Publish(_)
            | Command::Attach(_)
            | Command::Detach(_)
            | Command::SetCredit(_)
            | Command::Receive(_)
            | Command::Ack(_)
            | Command::Nack(_)
            | Command::Extend(_)
            | Command::Release(_)
            | Command::DetachAll(_)
            | Command::UpdateQueue(_)
            | Command::DeclareExchange(_)
            | Command::DeleteExchange(_)
            | Command::Bind(_)
            | Command::Unbind(_)
            | Command::Revise(_)
            | Command::ReviseById(_)
            | Command::ReviseMatching(_)
            | Command::Transact(_)
            | Command::DeclareSchedule(_)
            | Command::DeleteSchedule(_)
            | Command::ControlSchedule(_) => 1,
            Command::Identify(_) => 2,
            Command::PutUser(_) | Command::RemoveUser(_) => 3,
        }
    }

    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Identify(_) => "identify the cluster",
            Command::PutUser(_) => "change a user",
            Command::RemoveUser(_) => "remove a user",
            _ => "a command of the first format",
        }
    }
}

impl Machine {
    /// The newest format of which the state shows that commands were applied: every member has understood them, and need
    /// not be asked again. A cluster that has an id, or users, keeps them.
    pub fn command_format_applied(&self) -> u32 {
        match (self.users.is_empty(), self.cluster_id()) {
            (false, _) => 3,
            (true, Some(_)) => 2,
            (true, None) => COMMAND_FORMAT_UNANNOUNCED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DetachAll, RemoveUser};
    use super::*;

    #[test]
    fn no_command_is_newer_than_what_this_node_announces() {
        let newest = Command::RemoveUser(RemoveUser::default()).format();
        assert_eq!((Command::DetachAll(DetachAll {}).format(), newest), (COMMAND_FORMAT_UNANNOUNCED, COMMAND_FORMAT));
    }
}
