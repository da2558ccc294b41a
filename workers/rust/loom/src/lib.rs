//! The kit's ring, gate and telemetry block on loom's atomics, for tests/model.rs.

#[path = "../../src/gate.rs"]
pub mod gate;
#[path = "../../src/layout.rs"]
pub mod layout;
pub mod park;
pub mod primitive;
#[path = "../../src/ring.rs"]
pub mod ring;
#[path = "../../src/telemetry.rs"]
pub mod telemetry;
