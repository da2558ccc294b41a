//! A* over pieces of sea, with the great circle between their middles as the cost of a step and the
//! great circle to the destination as the estimate, which never is too long.
//!
//! From a piece one may step to those that touch it, across a corner where a third one touches
//! both, and far from land by further moves, up to three blocks: in 24 more directions, so that the
//! cost of a course depends little on its direction (at most some 2 % too much).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use crate::pieces::{Piece, Pieces, PIECES_MAX};
use crate::sea::{Kind, Sea};
use crate::sphere::angle;

/// Moves in open sea beyond the eight neighbours, and how many blocks around must be open for them.
const LEAPS: [(usize, &[(isize, isize)]); 2] = [
    (3, &[(1, 2), (2, 1), (-1, 2), (-2, 1), (1, -2), (2, -1), (-1, -2), (-2, -1)]),
    (
        4,
        &[
            (1, 3),
            (3, 1),
            (-1, 3),
            (-3, 1),
            (1, -3),
            (3, -1),
            (-1, -3),
            (-3, -1),
            (2, 3),
            (3, 2),
            (-2, 3),
            (-3, 2),
            (2, -3),
            (3, -2),
            (-2, -3),
            (-3, -2),
        ],
    ),
];

/// How often `still_wanted` is asked.
const ASK_EVERY: usize = 4096;

/// What is known of a piece that was reached.
#[derive(Clone, Copy)]
struct Reached {
    angle: f64, // from the beginning
    from: Piece,
    done: bool,
}

#[derive(PartialEq)]
struct Estimate(f64);
impl Eq for Estimate {}
impl PartialOrd for Estimate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Estimate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What was reached: open sea in a table of all blocks, whose untouched pages cost nothing; the
/// pieces of coasts beside it.
struct Table {
    open: Vec<u32>, // of each block, 1 + its place in `known`; 0: not reached
    coast: HashMap<Piece, u32>,
    known: Vec<Reached>,
}

impl Table {
    fn index(&mut self, sea: &Sea, piece: Piece) -> &mut u32 {
        if sea.kind(piece.block) == Kind::Open {
            &mut self.open[piece.block]
        } else {
            self.coast.entry(piece).or_insert(0)
        }
    }
}

/// Why there is no route.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoute<E> {
    /// The two are on different seas.
    Apart,
    /// What `still_wanted` gave.
    Stopped(E),
}

/// The pieces of the shortest route, both ends included. `still_wanted` is asked every few
/// milliseconds, with the share of the way that is certain, 0 to 1.
pub fn search<E>(
    sea: &Sea,
    pieces: &Pieces,
    from: Piece,
    to: Piece,
    mut still_wanted: impl FnMut(f64) -> Result<(), E>,
) -> Result<Vec<Piece>, NoRoute<E>> {
    let goal = pieces.vector(to);
    let whole = angle(pieces.vector(from), goal);
    let mut table = Table {
        open: vec![0; sea.block_rows * sea.block_columns],
        coast: HashMap::new(),
        known: vec![Reached { angle: 0.0, from, done: false }],
    };
    *table.index(sea, from) = 1;
    let mut queue = BinaryHeap::new();
    queue.push((Reverse(Estimate(whole)), 0u32, from.block, from.which));
    let mut steps = Vec::new();
    let mut count = 0;
    while let Some((Reverse(Estimate(estimate)), index, block, which)) = queue.pop() {
        let piece = Piece { block, which };
        let here = &mut table.known[index as usize];
        if here.done {
            continue; // reached by a shorter way since it was put here
        }
        here.done = true;
        let so_far = here.angle;
        if piece == to {
            return Ok(way_back(sea, &mut table, from, to));
        }
        if count % ASK_EVERY == 0 {
            let share = if whole > 0.0 { (so_far / estimate).clamp(0.0, 1.0) } else { 1.0 };
            still_wanted(share).map_err(NoRoute::Stopped)?;
        }
        count += 1;
        let at = pieces.vector(piece);
        steps.clear();
        steps_from(sea, pieces, piece, &mut steps);
        for step in &steps {
            let there = pieces.vector(*step);
            let reached = Reached { angle: so_far + angle(at, there), from: piece, done: false };
            reach(sea, &mut table, *step, reached, |index| {
                let estimate = Estimate(reached.angle + angle(there, goal));
                queue.push((Reverse(estimate), index, step.block, step.which));
            });
        }
    }
    Err(NoRoute::Apart)
}

/// Notes a way to a piece if it is the shortest so far, and has it queued.
fn reach(sea: &Sea, table: &mut Table, piece: Piece, reached: Reached, mut queue: impl FnMut(u32)) {
    let next = table.known.len() as u32 + 1;
    let index = table.index(sea, piece);
    if *index == 0 {
        *index = next;
        table.known.push(reached);
        queue(next - 1);
        return;
    }
    let index = *index - 1;
    let known = &mut table.known[index as usize];
    if !known.done && reached.angle < known.angle {
        *known = reached;
        queue(index);
    }
}

fn way_back(sea: &Sea, table: &mut Table, from: Piece, to: Piece) -> Vec<Piece> {
    let mut way = vec![to];
    let mut piece = to;
    while piece != from {
        let index = *table.index(sea, piece) - 1;
        piece = table.known[index as usize].from;
        way.push(piece);
    }
    way.reverse();
    way
}

fn steps_from(sea: &Sea, pieces: &Pieces, piece: Piece, steps: &mut Vec<Piece>) {
    for (clear, moves) in LEAPS {
        if sea.clear(piece.block) >= clear {
            for (south, east) in moves {
                let block = sea.beside(piece.block, *south, *east);
                steps.extend(block.map(|block| Piece { block, which: 0 }));
            }
        }
    }
    let mut beside = Vec::with_capacity(PIECES_MAX);
    for side in 0..4 {
        beside.clear();
        pieces.touching(piece, side, &mut beside);
        steps.extend_from_slice(&beside);
        // Across the corners on either hand.
        for third in &beside {
            pieces.touching(*third, (side + 1) % 4, steps);
            pieces.touching(*third, (side + 3) % 4, steps);
        }
    }
}

/// How far apart two pieces are that one can step between, in blocks.
pub fn is_leap(sea: &Sea, from: Piece, to: Piece) -> bool {
    let columns = sea.block_columns as isize;
    let (a, b) = (from.block as isize, to.block as isize);
    let south = (a / columns - b / columns).abs();
    let east = (a % columns - b % columns).abs();
    south.max(east.min(columns - east)) > 1
}
