//! The driver: log → streams → views, each epoch exactly once.

pub mod archive;
pub mod as_of;
mod between;
pub mod candidate;
mod chores;
pub mod clocks;
mod commit;
mod count;
pub mod drift;
pub mod driver;
pub mod epochs;
pub mod goal;
pub mod guard;
pub mod intake;
pub mod intake_times;
pub mod lag;
pub mod letters;
mod load;
pub mod operations;
mod outbox;
pub mod past;
pub mod preview;
pub mod reader;
pub mod recompute;
pub mod removal;
pub mod republish;
pub mod restore;
mod scan;
mod stand_by;
pub mod status;
pub mod topics;
pub mod truncate;
pub mod verify;
pub mod witness;

pub use driver::{Driver, DriverConfig, DriverError, DriverHandle};
pub use status::{DriverStatus, PartitionStatus, Phase};
