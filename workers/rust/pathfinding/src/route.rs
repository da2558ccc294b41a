//! From a place to another by sea: search over blocks, follow what was found cell by cell, pull it
//! taut.

use std::collections::VecDeque;

use crate::pieces::{Piece, Pieces, SIDES};
use crate::pull::pull;
use crate::sea::{Cell, Sea, SIDE};
use crate::search::{is_leap, search, NoRoute};
use crate::sphere::{distance_nm, Place, Vector};

/// A place may lie so far from the sea, in cells: up a river, behind a mole that the mask does not
/// show.
const ASHORE_MAX: isize = 30;
/// A basin of fewer cells is none that a route may begin in.
const BASIN_CELLS: usize = 2000;

#[derive(Debug)]
pub struct Route {
    pub nautical_miles: f64,
    /// Between them a ship follows great circles. The first and the last lie at sea.
    pub points: Vec<Place>,
}

#[derive(Debug, PartialEq)]
pub enum Failure<E> {
    /// No sea within 30 minutes of arc of this place.
    Ashore(Place),
    /// No way by sea between the two: one lies on a sea of its own, or in the ice.
    Apart,
    Stopped(E),
}

/// The shortest way by sea. `still_wanted` is asked every few milliseconds, with the share that is
/// done.
pub fn find<E>(
    sea: &Sea,
    from: Place,
    to: Place,
    mut still_wanted: impl FnMut(f64) -> Result<(), E>,
) -> Result<Route, Failure<E>> {
    let pieces = Pieces::of(sea);
    let first = afloat(sea, &pieces, from).ok_or(Failure::Ashore(from))?;
    let last = afloat(sea, &pieces, to).ok_or(Failure::Ashore(to))?;
    // afloat() has found a piece for both.
    let (start, goal) = (pieces.at(first).unwrap(), pieces.at(last).unwrap());
    let way = search(sea, &pieces, start, goal, &mut still_wanted).map_err(|e| match e {
        NoRoute::Apart => Failure::Apart,
        NoRoute::Stopped(why) => Failure::Stopped(why),
    })?;
    let followed = follow(sea, &pieces, first, last, &way);
    let taut = pull(sea, followed, || still_wanted(1.0)).map_err(Failure::Stopped)?;
    let nautical_miles = taut.windows(2).map(|leg| distance_nm(leg[0], leg[1])).sum();
    Ok(Route { nautical_miles, points: taut.into_iter().map(Place::of).collect() })
}

/// The nearest cell that lies on a sea and not in a basin.
fn afloat(sea: &Sea, pieces: &Pieces, place: Place) -> Option<Cell> {
    let middle = sea.cell_at(place);
    let here = place.vector();
    let mut near: Vec<(f64, Cell)> = Vec::new();
    let reach = -ASHORE_MAX..=ASHORE_MAX;
    for (south, east) in reach.clone().flat_map(|s| reach.clone().map(move |e| (s, e))) {
        if let Some(cell) = cell_beside(sea, middle, south, east) {
            if sea.is_sea(cell) {
                near.push((distance_nm(here, sea.vector_of(cell)), cell));
            }
        }
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.into_iter()
        .map(|(_, cell)| cell)
        .find(|cell| pieces.at(*cell).is_some() && is_wide(sea, *cell))
}

fn cell_beside(sea: &Sea, cell: Cell, south: isize, east: isize) -> Option<Cell> {
    let row = cell.row as isize + south;
    let column = (cell.column as isize + east).rem_euclid(sea.columns as isize);
    (0..sea.rows as isize)
        .contains(&row)
        .then_some(Cell { row: row as usize, column: column as usize })
}

/// Is a sea of some size around it?
fn is_wide(sea: &Sea, from: Cell) -> bool {
    let mut seen = std::collections::HashSet::from([from]);
    let mut next = VecDeque::from([from]);
    while let Some(cell) = next.pop_front() {
        if seen.len() >= BASIN_CELLS {
            return true;
        }
        for (south, east) in SIDES {
            if let Some(beside) = cell_beside(sea, cell, south, east) {
                if sea.is_sea(beside) && seen.insert(beside) {
                    next.push_back(beside);
                }
            }
        }
    }
    false
}

/// The way in points between which there is nothing but sea.
fn follow(sea: &Sea, pieces: &Pieces, first: Cell, last: Cell, way: &[Piece]) -> Vec<Vector> {
    let mut cells = vec![first];
    let mut here = (first, way[0]);
    let stops = way.iter().map(|piece| (pieces.middle(*piece), *piece));
    for stop in stops.chain([(last, way[way.len() - 1])]) {
        if is_leap(sea, here.1, stop.1) {
            cells.push(stop.0);
        } else {
            cells.extend(creep(sea, here.0, stop.0));
        }
        here = stop;
    }
    cells.dedup();
    cells.into_iter().map(|cell| sea.vector_of(cell)).collect()
}

/// The cells from one to another in the same block or the next one, side by side, by breadth first
/// search in no more than the blocks that both lie in or between. The first is left out.
fn creep(sea: &Sea, from: Cell, to: Cell) -> Vec<Cell> {
    let window = Window::of(sea, from, to);
    let mut came_from = vec![None; window.height * window.width];
    let start = window.index(from).unwrap();
    came_from[start] = Some(start);
    let mut next = VecDeque::from([from]);
    while let Some(cell) = next.pop_front() {
        if cell == to {
            break;
        }
        let at = window.index(cell).unwrap();
        for (south, east) in SIDES {
            let beside = match cell_beside(sea, cell, south, east) {
                Some(beside) if sea.is_sea(beside) => beside,
                _ => continue,
            };
            if let Some(there) = window.index(beside) {
                if came_from[there].is_none() {
                    came_from[there] = Some(at);
                    next.push_back(beside);
                }
            }
        }
    }
    let mut cells = Vec::new();
    let mut at = window.index(to).unwrap();
    while at != start {
        cells.push(window.cell(at));
        // Pieces that touch have a way between them within their blocks (pieces.rs).
        at = came_from[at].expect("pieces that touch");
    }
    cells.reverse();
    cells
}

/// Whole blocks around two cells, also across 180 degrees.
struct Window {
    row: usize,
    column: usize,
    height: usize,
    width: usize,
    columns: usize, // of the sea
}

impl Window {
    fn of(sea: &Sea, a: Cell, b: Cell) -> Window {
        let block = |n: usize| n / SIDE * SIDE;
        let (top, bottom) = (block(a.row.min(b.row)), block(a.row.max(b.row)) + SIDE);
        let (a, b) = (block(a.column), block(b.column));
        let (west, east) =
            if a.max(b) - a.min(b) > SIDE { (a.max(b), a.min(b)) } else { (a.min(b), a.max(b)) };
        Window {
            row: top,
            column: west,
            height: bottom - top,
            width: (east + sea.columns - west) % sea.columns + SIDE,
            columns: sea.columns,
        }
    }

    fn index(&self, cell: Cell) -> Option<usize> {
        let row = cell.row.checked_sub(self.row)?;
        let column = (cell.column + self.columns - self.column) % self.columns;
        (row < self.height && column < self.width).then(|| row * self.width + column)
    }

    fn cell(&self, index: usize) -> Cell {
        Cell {
            row: self.row + index / self.width,
            column: (self.column + index % self.width) % self.columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sea::tests::made;

    fn place(latitude: f64, longitude: f64) -> Place {
        Place::new(latitude, longitude).unwrap()
    }

    fn always(_: f64) -> Result<(), ()> {
        Ok(())
    }

    #[test]
    fn over_open_sea_it_is_the_great_circle() {
        let sea = made(|_, _| false);
        for (from, to) in [
            (place(40.0, -70.0), place(50.0, -5.0)),
            (place(-30.0, 170.0), place(35.0, -140.0)), // across 180 degrees
            (place(10.0, 10.0), place(10.0, 10.5)),
            (place(1.0, 1.0), place(1.0, 1.0)),
        ] {
            let route = find(&sea, from, to, always).unwrap();
            let straight = distance_nm(from.vector(), to.vector());
            // The ends are middles of cells of half a degree.
            assert!((route.nautical_miles - straight).abs() < 45.0, "{route:?} {straight}");
            assert!(route.points.len() <= 2, "{route:?}");
        }
    }

    #[test]
    fn a_wall_is_gone_round_at_its_end() {
        // From 40 S to the north pole, 2 degrees wide.
        let sea = made(|lat, lon| lat > -40.0 && (0.0..2.0).contains(&lon));
        let (from, to) = (place(0.0, -20.0), place(0.0, 22.0));
        let route = find(&sea, from, to, always).unwrap();
        let corner = [place(-40.0, 0.0).vector(), place(-40.0, 2.0).vector()];
        let round = distance_nm(from.vector(), corner[0])
            + distance_nm(corner[0], corner[1])
            + distance_nm(corner[1], to.vector());
        assert!((route.nautical_miles / round - 1.0).abs() < 0.015, "{route:?} {round}");
    }

    #[test]
    fn a_strait_of_one_cell_is_passed() {
        let strait = |lat: f64| (10.0..10.5).contains(&lat);
        let sea = made(|lat, lon| (0.0..20.0).contains(&lon) && !strait(lat) && lat.abs() < 65.0);
        let route = find(&sea, place(0.0, -5.0), place(0.0, 25.0), always).unwrap();
        let by = [place(0.25, -4.75), place(10.0, 0.0), place(10.0, 20.0), place(0.25, 25.25)];
        let through: f64 =
            by.windows(2).map(|leg| distance_nm(leg[0].vector(), leg[1].vector())).sum();
        assert!((route.nautical_miles / through - 1.0).abs() < 0.005, "{route:?} {through}");
    }

    #[test]
    fn what_no_sea_joins_is_apart_and_what_lies_inland_is_ashore() {
        let sea = made(|lat, lon| {
            let ring = |x: f64, y: f64| (20.0..30.0).contains(&x.hypot(y));
            ring(lat, lon) || (60.0..120.0).contains(&lon)
        });
        let inside = place(0.0, 0.0);
        assert_eq!(find(&sea, inside, place(0.0, 50.0), always).unwrap_err(), Failure::Apart);
        let inland = place(0.0, 90.0);
        assert_eq!(find(&sea, inside, inland, always).unwrap_err(), Failure::Ashore(inland));
    }

    #[test]
    fn it_stops_when_nobody_wants_it() {
        let sea = made(|_, _| false);
        let route = find(&sea, place(0.0, 0.0), place(0.0, 90.0), |_| Err("enough"));
        assert_eq!(route.unwrap_err(), Failure::Stopped("enough"));
    }
}
