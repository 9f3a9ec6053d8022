//! What replay tells of views, and makes of logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod as_of;
mod layouts;
mod past;
mod promotion;
mod rollback;
mod truncate;
mod verify;
