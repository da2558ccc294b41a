//! A map of a route as a PNG (ISO 15948): one byte a pixel through a palette, in stored blocks of
//! deflate, which any reader takes and which need no compressor.

use crate::route::Route;
use crate::sea::{Cell, Sea};
use crate::sphere::{Leg, Place};

const PALETTE: [[u8; 3]; 4] = [[198, 219, 239], [120, 132, 106], [203, 24, 29], [20, 20, 20]];
const SEA: u8 = 0;
const LAND: u8 = 1;
const WAY: u8 = 2;
const END: u8 = 3;
const STORED_BYTES_MAX: usize = 65_535;

/// The whole Earth, two pixels wide for one high, with the route on it.
pub fn draw(sea: &Sea, route: &Route, height: usize) -> Vec<u8> {
    let width = 2 * height;
    let mut pixels = vec![SEA; width * height];
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let cell = Cell {
            row: (2 * (i / width) + 1) * sea.rows / (2 * height),
            column: (2 * (i % width) + 1) * sea.columns / (2 * width),
        };
        if !sea.is_sea(cell) {
            *pixel = LAND;
        }
    }
    let mut dot = |place: Place, radius: isize, colour: u8| {
        let row = ((90.0 - place.latitude) / 180.0 * height as f64) as isize;
        let column = ((place.longitude + 180.0) / 360.0 * width as f64) as isize;
        for (south, east) in
            (-radius..=radius).flat_map(|s| (-radius..=radius).map(move |e| (s, e)))
        {
            let (row, column) = (row + south, (column + east).rem_euclid(width as isize));
            if (0..height as isize).contains(&row) {
                pixels[row as usize * width + column as usize] = colour;
            }
        }
    };
    let radius = (height / 500) as isize;
    for ends in route.points.windows(2) {
        let leg = Leg::new(ends[0].vector(), ends[1].vector());
        let steps = (leg.angle * width as f64).ceil().max(1.0);
        for i in 0..=steps as usize {
            dot(Place::of(leg.at(leg.angle * i as f64 / steps)), radius, WAY);
        }
    }
    for end in [route.points.first(), route.points.last()].into_iter().flatten() {
        dot(*end, radius + 2, END);
    }
    png(width, height, &pixels)
}

fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = Vec::new();
    head.extend_from_slice(&(width as u32).to_be_bytes());
    head.extend_from_slice(&(height as u32).to_be_bytes());
    head.extend_from_slice(&[8, 3, 0, 0, 0]); // bits, palette, deflate, filters, not interlaced
    chunk(&mut file, b"IHDR", &head);
    chunk(&mut file, b"PLTE", &PALETTE.concat());
    let mut lines = Vec::with_capacity(height * (width + 1));
    for line in pixels.chunks(width) {
        lines.push(0); // no filter
        lines.extend_from_slice(line);
    }
    chunk(&mut file, b"IDAT", &zlib_stored(&lines));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let begin = file.len();
    file.extend_from_slice(kind);
    file.extend_from_slice(data);
    let sum = crc32(&file[begin..]);
    file.extend_from_slice(&sum.to_be_bytes());
}

/// RFC 1950 around blocks of RFC 1951, 3.2.4.
fn zlib_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(STORED_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let size = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&(!size).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

/// ISO 3309, bit by bit: a picture is drawn seldom.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let out = zlib_stored(b"Wikipedia");
        assert_eq!(out[out.len() - 4..], 0x11e6_0398u32.to_be_bytes());
        assert_eq!(out[2..7], [1, 9, 0, 0xf6, 0xff]);
    }
}
