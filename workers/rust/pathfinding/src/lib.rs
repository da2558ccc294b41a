//! Shortest routes by sea on the real coastline (docs/pathfinding.md).

pub mod payload;
pub mod picture;
pub mod pieces;
pub mod pull;
pub mod route;
pub mod sea;
pub mod search;
pub mod sphere;
