//! A node in a pod of a Kubernetes StatefulSet: it finds its place in the cluster by itself.
//!
//! What is steady about such a pod is its name, and with it its addresses; its data may be lost, and then so is its vote.
//! Therefore a node's id lives with its data ([`dwell_storage::enrolment`]): who comes with data goes on under the id
//! that it had, also after it was removed meanwhile, and who comes without gets a new one, and the member that had its
//! addresses is removed.
//!
//! A cluster is formed once, by pods that all come without data and that say so to each other ([`decision`]).

mod decision;
mod enrol;
mod members;
mod place;
mod waiting;

pub use enrol::enrol;
pub use members::{Removed, belong, hand_over, remove_from};
pub use place::{HostTemplate, Place, Ports};
