//! Where the sea is: the mask that prepare.py writes, mapped once for all workers, and blocks of it
//! that tell how far land is.

use std::path::Path;

use crate::sphere::{Place, Vector};

const MAGIC: &[u8; 8] = b"RBSEA\0\0\0";
const HEAD_BYTES: usize = 64;
/// Minutes of arc in a block's side.
pub const SIDE: usize = 10;
/// Ships keep out of the ice: between these latitudes. North of the first lie the passages round
/// Siberia and Canada, south of the second the pack ice.
const NORTH: f64 = 71.5;
const SOUTH: f64 = -60.0;

/// A square minute: rows from north to south, columns from 180 W eastwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    pub row: usize,
    pub column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Land,
    /// Some of both.
    Coast,
    Open,
}

pub struct Sea {
    bits: &'static [u8],
    pub rows: usize,
    pub columns: usize,
    pub block_rows: usize,
    pub block_columns: usize,
    kinds: Vec<Kind>,
    /// How many blocks away, in any direction, the nearest one is that is not open.
    clear: Vec<u8>,
    /// Sine and cosine of each row's latitude and each column's longitude: a search asks for
    /// millions.
    latitudes: Vec<(f64, f64)>,
    longitudes: Vec<(f64, f64)>,
}

impl Sea {
    /// Maps a mask. Nobody may change the file while it is mapped: it is replaced, not written to.
    pub fn open(path: &Path) -> Result<Sea, String> {
        // SAFETY: prepare.py writes another file and renames it over this one.
        let file = unsafe { ringbridge_worker::map_file(path) }
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Sea::of(file).ok_or_else(|| format!("{} is no mask of the sea", path.display()))
    }

    /// `file`: as prepare.py writes it, of any number of whole blocks.
    pub fn of(file: &'static [u8]) -> Option<Sea> {
        let number = |at: usize| -> Option<usize> {
            let bytes = file.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        };
        let (rows, columns) = (number(8)?, number(12)?);
        let blocks = rows % SIDE == 0 && columns % SIDE == 0 && columns % 8 == 0;
        if &file[..8] != MAGIC || !blocks || rows == 0 || columns != 2 * rows {
            return None;
        }
        let bits = file.get(HEAD_BYTES..)?;
        if bits.len() != rows * columns / 8 {
            return None;
        }
        let (block_rows, block_columns) = (rows / SIDE, columns / SIDE);
        let mut sea = Sea {
            bits,
            rows,
            columns,
            block_rows,
            block_columns,
            kinds: Vec::new(),
            clear: vec![0; block_rows * block_columns],
            latitudes: Vec::new(),
            longitudes: Vec::new(),
        };
        let place = |row, column| sea.place_of(Cell { row, column });
        let latitudes = (0..rows).map(|row| place(row, 0).latitude.to_radians().sin_cos());
        let longitudes = (0..columns).map(|c| place(0, c).longitude.to_radians().sin_cos());
        (sea.latitudes, sea.longitudes) = (latitudes.collect(), longitudes.collect());
        sea.kinds = (0..block_rows * block_columns).map(|block| sea.kind_of(block)).collect();
        sea.measure();
        Some(sea)
    }

    /// Degrees of one cell.
    fn degrees(&self) -> f64 {
        180.0 / self.rows as f64
    }

    pub fn is_sea(&self, cell: Cell) -> bool {
        let bit = cell.row * self.columns + cell.column;
        self.bits[bit / 8] >> (bit % 8) & 1 == 1
    }

    pub fn cell_at(&self, place: Place) -> Cell {
        let row = (90.0 - place.latitude) / self.degrees();
        let column = (place.longitude + 180.0) / self.degrees();
        Cell { row: (row as usize).min(self.rows - 1), column: column as usize % self.columns }
    }

    /// Its middle.
    pub fn place_of(&self, cell: Cell) -> Place {
        Place {
            latitude: 90.0 - (cell.row as f64 + 0.5) * self.degrees(),
            longitude: (cell.column as f64 + 0.5) * self.degrees() - 180.0,
        }
    }

    pub fn vector_of(&self, cell: Cell) -> Vector {
        let ((sin_lat, cos_lat), (sin_lon, cos_lon)) =
            (self.latitudes[cell.row], self.longitudes[cell.column]);
        [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat]
    }

    pub fn block_of(&self, cell: Cell) -> usize {
        cell.row / SIDE * self.block_columns + cell.column / SIDE
    }

    /// Its first cell.
    pub fn corner_of(&self, block: usize) -> Cell {
        let (row, column) = (block / self.block_columns, block % self.block_columns);
        Cell { row: row * SIDE, column: column * SIDE }
    }

    /// The block so many rows south and columns east; round the Earth, but not over a pole.
    pub fn beside(&self, block: usize, south: isize, east: isize) -> Option<usize> {
        let row = (block / self.block_columns) as isize + south;
        let column = (block % self.block_columns) as isize + east;
        if row < 0 || row >= self.block_rows as isize {
            return None;
        }
        let column = column.rem_euclid(self.block_columns as isize);
        Some(row as usize * self.block_columns + column as usize)
    }

    pub fn kind(&self, block: usize) -> Kind {
        self.kinds[block]
    }

    /// All blocks nearer than this, in any direction, are open; 0 for one that is not open itself.
    pub fn clear(&self, block: usize) -> usize {
        usize::from(self.clear[block])
    }

    /// SIDE cells of a row, a bit each.
    fn cells_from(&self, cell: Cell) -> u32 {
        let bit = cell.row * self.columns + cell.column;
        let byte = |at: usize| u32::from(self.bits.get(at).copied().unwrap_or(0));
        let bits = byte(bit / 8) | byte(bit / 8 + 1) << 8 | byte(bit / 8 + 2) << 16;
        bits >> (bit % 8) & ((1 << SIDE) - 1)
    }

    fn kind_of(&self, block: usize) -> Kind {
        let corner = self.corner_of(block);
        let latitude = self.place_of(corner).latitude;
        if latitude > NORTH || latitude - SIDE as f64 * self.degrees() < SOUTH {
            return Kind::Land;
        }
        let cells: u32 = (corner.row..corner.row + SIDE)
            .map(|row| self.cells_from(Cell { row, column: corner.column }).count_ones())
            .sum();
        match cells {
            0 => Kind::Land,
            n if n as usize == SIDE * SIDE => Kind::Open,
            _ => Kind::Coast,
        }
    }

    /// Distances by two passes each way, twice for what comes round the Earth.
    fn measure(&mut self) {
        let count = self.clear.len();
        for block in 0..count {
            self.clear[block] = if self.kinds[block] == Kind::Open { u8::MAX } else { 0 };
        }
        const BEFORE: [(isize, isize); 4] = [(0, -1), (-1, -1), (-1, 0), (-1, 1)];
        for _ in 0..2 {
            for i in 0..2 * count {
                let forward = i < count;
                let block = if forward { i } else { 2 * count - 1 - i };
                let sign = if forward { 1 } else { -1 };
                for (south, east) in BEFORE {
                    let near = self.beside(block, sign * south, sign * east);
                    let theirs = near.map_or(0, |near| self.clear[near]);
                    self.clear[block] = self.clear[block].min(theirs.saturating_add(1));
                }
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A sea of 1 degree a cell, all water but where `is_land` says.
    pub fn made(is_land: impl Fn(f64, f64) -> bool) -> Sea {
        let (rows, columns) = (360usize, 720usize);
        let mut file = vec![0u8; HEAD_BYTES + rows * columns / 8];
        file[..8].copy_from_slice(MAGIC);
        file[8..12].copy_from_slice(&(rows as u32).to_le_bytes());
        file[12..16].copy_from_slice(&(columns as u32).to_le_bytes());
        for bit in 0..rows * columns {
            let latitude = 90.0 - ((bit / columns) as f64 + 0.5) / 2.0;
            let longitude = ((bit % columns) as f64 + 0.5) / 2.0 - 180.0;
            if !is_land(latitude, longitude) {
                file[HEAD_BYTES + bit / 8] |= 1 << (bit % 8);
            }
        }
        Sea::of(Box::leak(file.into_boxed_slice())).unwrap()
    }

    #[test]
    fn cells_and_places_agree() {
        let sea = made(|_, _| false);
        for (latitude, longitude) in [(0.2, 0.2), (51.9, 4.1), (-33.9, 18.4), (12.0, -179.9)] {
            let place = Place::new(latitude, longitude).unwrap();
            let middle = sea.place_of(sea.cell_at(place));
            assert!((middle.latitude - latitude).abs() <= 0.25);
            assert!((middle.longitude - longitude).abs() <= 0.25);
        }
        let west = sea.cell_at(Place::new(0.0, 180.0).unwrap());
        assert_eq!(west.column, 0, "180 E is 180 W");
    }

    #[test]
    fn blocks_know_how_far_land_is() {
        let sea = made(|lat, lon| (0.0..5.0).contains(&lat) && (0.0..5.0).contains(&lon));
        let at = |lat, lon| sea.block_of(sea.cell_at(Place::new(lat, lon).unwrap()));
        assert_eq!(sea.kind(at(2.0, 2.0)), Kind::Land);
        assert_eq!(sea.clear(at(2.0, 7.0)), 1);
        assert_eq!(sea.clear(at(2.0, 12.0)), 2);
        assert_eq!(sea.clear(at(12.0, 12.0)), 2);
        assert_eq!(sea.clear(at(2.0, -178.0)), 12, "the ice is nearer than the island");
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        assert!(Sea::of(b"").is_none());
        assert!(Sea::of(&[0; 64]).is_none());
        assert!(Sea::of(b"RBSEA\0\0\0\x0a\0\0\0\x14\0\0\0").is_none());
    }
}
