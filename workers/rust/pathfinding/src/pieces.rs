//! The pieces of sea within a block, and which touch which: the nodes and edges that are searched.
//!
//! A block of open sea is one piece. One on the coast has as many as its sea falls into, by cells
//! that share a side; pieces of neighbouring blocks touch where cells of theirs share a side. So a
//! route over touching pieces is one that a ship can follow, however narrow the strait, and no
//! isthmus is crossed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::sea::{Cell, Kind, Sea, SIDE};
use crate::sphere::Vector;

const CELLS: usize = SIDE * SIDE;
/// Of one block; what is more are ponds.
pub const PIECES_MAX: usize = 8;
const NONE: u8 = u8::MAX;

/// Number of a piece: its block, and which of the block's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    pub block: usize,
    pub which: usize,
}

/// A block on the coast.
struct Coast {
    labels: [u8; CELLS], // of each cell its piece
    middles: Vec<usize>, // of each piece the cell nearest to its middle
}

/// North, east, south, west: rows south, columns east.
pub const SIDES: [(isize, isize); 4] = [(-1, 0), (0, 1), (1, 0), (0, -1)];

/// All pieces of a sea; what was once found on the coast is kept.
pub struct Pieces<'s> {
    sea: &'s Sea,
    coasts: RefCell<HashMap<usize, Rc<Coast>>>,
}

impl<'s> Pieces<'s> {
    pub fn of(sea: &'s Sea) -> Self {
        Pieces { sea, coasts: RefCell::default() }
    }

    /// The piece that a cell of sea belongs to; None for land, ice and ponds.
    pub fn at(&self, cell: Cell) -> Option<Piece> {
        let block = self.sea.block_of(cell);
        let which = match self.sea.kind(block) {
            Kind::Land => return None,
            Kind::Open => 0,
            Kind::Coast => {
                let within = cell.row % SIDE * SIDE + cell.column % SIDE;
                match self.coast(block).labels[within] {
                    NONE => return None,
                    which => usize::from(which),
                }
            }
        };
        Some(Piece { block, which })
    }

    /// A cell in the midst of a piece, which stands for it.
    pub fn middle(&self, piece: Piece) -> Cell {
        let within = match self.sea.kind(piece.block) {
            Kind::Coast => self.coast(piece.block).middles[piece.which],
            _ => SIDE / 2 * SIDE + SIDE / 2,
        };
        let corner = self.sea.corner_of(piece.block);
        Cell { row: corner.row + within / SIDE, column: corner.column + within % SIDE }
    }

    pub fn vector(&self, piece: Piece) -> Vector {
        self.sea.vector_of(self.middle(piece))
    }

    /// Adds the pieces that touch this one on a side of its block.
    pub fn touching(&self, piece: Piece, side: usize, found: &mut Vec<Piece>) {
        let (south, east) = SIDES[side];
        let block = match self.sea.beside(piece.block, south, east) {
            Some(block) if self.sea.kind(block) != Kind::Land => block,
            _ => return,
        };
        if self.sea.kind(piece.block) == Kind::Open && self.sea.kind(block) == Kind::Open {
            found.push(Piece { block, which: 0 });
            return;
        }
        let (ours, theirs) = (self.labels(piece.block), self.labels(block));
        let begin = found.len();
        for i in 0..SIDE {
            let last = SIDE - 1;
            let (from, to) = match side {
                0 => (i, last * SIDE + i),
                1 => (i * SIDE + last, i * SIDE),
                2 => (last * SIDE + i, i),
                _ => (i * SIDE, i * SIDE + last),
            };
            let (from, to) = (ours(from), theirs(to));
            if usize::from(from) != piece.which || to == NONE {
                continue;
            }
            let other = Piece { block, which: to.into() };
            if !found[begin..].contains(&other) {
                found.push(other);
            }
        }
    }

    /// Of each cell of a block its piece.
    fn labels(&self, block: usize) -> impl Fn(usize) -> u8 {
        let coast = (self.sea.kind(block) == Kind::Coast).then(|| self.coast(block));
        move |cell| coast.as_ref().map_or(0, |coast| coast.labels[cell])
    }

    fn coast(&self, block: usize) -> Rc<Coast> {
        if let Some(coast) = self.coasts.borrow().get(&block) {
            return coast.clone();
        }
        let coast = Rc::new(Coast::of(self.sea, block));
        self.coasts.borrow_mut().insert(block, coast.clone());
        coast
    }
}

impl Coast {
    fn of(sea: &Sea, block: usize) -> Coast {
        let corner = sea.corner_of(block);
        let is_sea = |within: usize| {
            sea.is_sea(Cell {
                row: corner.row + within / SIDE,
                column: corner.column + within % SIDE,
            })
        };
        let mut coast = Coast { labels: [NONE; CELLS], middles: Vec::new() };
        for first in 0..CELLS {
            if coast.labels[first] != NONE || !is_sea(first) || coast.middles.len() == PIECES_MAX {
                continue;
            }
            let which = coast.middles.len() as u8;
            let mut cells = vec![first];
            coast.labels[first] = which;
            let mut next = 0;
            while next < cells.len() {
                for beside in within_block(cells[next]) {
                    if coast.labels[beside] == NONE && is_sea(beside) {
                        coast.labels[beside] = which;
                        cells.push(beside);
                    }
                }
                next += 1;
            }
            coast.middles.push(middle_of(&cells));
        }
        coast
    }
}

/// The cells that share a side with one and lie in the same block.
fn within_block(cell: usize) -> impl Iterator<Item = usize> {
    let (row, column) = ((cell / SIDE) as isize, (cell % SIDE) as isize);
    SIDES.into_iter().filter_map(move |(south, east)| {
        let (row, column) = (row + south, column + east);
        let inside = 0..SIDE as isize;
        (inside.contains(&row) && inside.contains(&column))
            .then(|| row as usize * SIDE + column as usize)
    })
}

fn middle_of(cells: &[usize]) -> usize {
    let mean = |of: fn(usize) -> usize| {
        cells.iter().map(|cell| of(*cell)).sum::<usize>() as f64 / cells.len() as f64
    };
    let (row, column) = (mean(|cell| cell / SIDE), mean(|cell| cell % SIDE));
    let off = |cell: usize| {
        let (south, east) = ((cell / SIDE) as f64 - row, (cell % SIDE) as f64 - column);
        south * south + east * east
    };
    *cells.iter().min_by(|a, b| off(**a).total_cmp(&off(**b))).unwrap()
}
