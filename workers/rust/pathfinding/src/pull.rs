//! Pulls a way taut: shortens it to great circles from headland to headland.
//!
//! A way that keeps to the sea stays one while any stretch of it is replaced by the great circle
//! between the stretch's ends, if that has sea all along; and it only becomes shorter. Points are
//! laid along its legs, and from each the furthest one in sight is gone to. Points that lie ever
//! closer find ever shorter cuts round a headland, until the way lies against it. What is furthest
//! in sight may lie well past a headland and leave a corner in mid-sea; seen from the other end it
//! is cut, so each round goes there and back.

use crate::sea::{Kind, Sea, SIDE};
use crate::sphere::{angle, Leg, Place, Vector, RADIUS_NM};

/// Between the points of one round.
const SPACINGS_NM: [f64; 9] = [240.0, 120.0, 60.0, 30.0, 15.0, 60.0, 8.0, 4.0, 30.0];
/// Of the looks along a leg near land, in cells.
const LOOK_CELLS: f64 = 0.5;
const CELL: f64 = std::f64::consts::PI / 180.0 / 60.0;

/// `still_wanted` is asked once a round.
pub fn pull<E>(
    sea: &Sea,
    way: Vec<Vector>,
    mut still_wanted: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Vector>, E> {
    let mut way = shorten(sea, &way);
    for spacing in SPACINGS_NM {
        still_wanted()?;
        for _there_and_back in 0..2 {
            way = shorten(sea, &with_points(&way, spacing / RADIUS_NM));
            way.reverse();
        }
    }
    Ok(way)
}

/// From each point to the furthest one in sight: looked for in doubling strides, then by halves.
fn shorten(sea: &Sea, way: &[Vector]) -> Vec<Vector> {
    let last = way.len() - 1;
    let mut short = vec![way[0]];
    let mut at = 0;
    while at < last {
        let (mut seen, mut hidden) = (at + 1, last + 1);
        let mut stride = 2;
        while at + stride <= last {
            if !in_sight(sea, way[at], way[at + stride]) {
                hidden = at + stride;
                break;
            }
            seen = at + stride;
            stride *= 2;
        }
        while hidden - seen > 1 {
            let middle = seen + (hidden - seen) / 2;
            if middle <= last && in_sight(sea, way[at], way[middle]) {
                seen = middle;
            } else {
                hidden = middle;
            }
        }
        short.push(way[seen]);
        at = seen;
    }
    short
}

/// The same way with points at most so far apart.
fn with_points(way: &[Vector], spacing: f64) -> Vec<Vector> {
    let mut points = vec![way[0]];
    for ends in way.windows(2) {
        let leg = Leg::new(ends[0], ends[1]);
        let count = (leg.angle / spacing).ceil().max(1.0);
        points.extend((1..count as usize).map(|i| leg.at(leg.angle * i as f64 / count)));
        points.push(ends[1]);
    }
    points
}

/// Is there nothing but sea on the great circle between the two? Far from land it is gone along in
/// steps as long as no land can be within.
pub fn in_sight(sea: &Sea, from: Vector, to: Vector) -> bool {
    if angle(from, to) > 3.0 {
        return false; // nearly opposite: which great circle is a matter of rounding
    }
    let leg = Leg::new(from, to);
    let cell = CELL * 10_800.0 / sea.rows as f64;
    let mut along = 0.0;
    while along < leg.angle {
        let place = Place::of(leg.at(along));
        let at = sea.cell_at(place);
        let block = sea.block_of(at);
        if sea.kind(block) == Kind::Land || !sea.is_sea(at) {
            return false;
        }
        // Whole blocks of sea beyond our own, in minutes; a minute of longitude is shorter.
        let free = (sea.clear(block).clamp(1, 31) - 1) as f64 * SIDE as f64 * cell;
        let shrink = (place.latitude.abs().to_radians() + free).cos().max(0.0);
        along += (free * shrink).max(LOOK_CELLS * cell);
    }
    true
}
