//! A worker of a ringbridge in Rust: jobs come from shared memory, answers are written there.
//!
//! The handler is a function from a job to its one answer: that there is exactly one is its type.
//! An error that it hands on with `?` says how the job is answered ([`Error`]). A panic ends the
//! process (`panic = "abort"`): the bridge sees the death, answers the job, starts the next worker.
//!
//! docs/workers-rust.md is the tour; csrc/include/ringbridge/*.h have the protocols and the labels
//! (R0, G1, ...) that the orders here name.

#![doc = "\n"]
#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations)]

pub mod layout;

mod channel;
mod chaos;
mod crc32c;
mod dataset;
mod envelope;
mod error;
mod gate;
mod heartbeat;
mod job;
mod kit;
mod link;
mod memory;
mod packet;
mod park;
mod parts;
mod peer;
mod peer_serve;
mod peer_wire;
mod primitive;
mod region;
mod ring;
mod room;
mod serve;
mod socket;
mod state;
mod sys;
mod telemetry;
mod term;
mod worker;

pub use channel::{Dest, Kind, Level, Logger};
pub use dataset::map_file;
pub use error::{
    Error, CODE_ANSWER_TOO_LARGE, CODE_KIT, CODE_NO_ANSWER, CODE_REFUSED, MESSAGE_BYTES_MAX,
};
pub use job::{Cancel, Job, Trace};
pub use peer::{Payload, Peer};
pub use peer_wire::PEER_BYTES_MAX;
pub use room::{Answer, Room};
pub use state::State;
pub use worker::{Op, Takes, Worker, KIT_VERSION};
