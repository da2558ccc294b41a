//! What a job of this role is asked and answers, as text and as terms (docs/pathfinding.md).

use crate::route::Route;
use crate::sphere::Place;

// erl_ext_dist
const NEW_FLOAT_EXT: u8 = 70;
const SMALL_INTEGER_EXT: u8 = 97;
const INTEGER_EXT: u8 = 98;
const SMALL_TUPLE_EXT: u8 = 104;
const NIL_EXT: u8 = 106;
const LIST_EXT: u8 = 108;

/// Two places out of "LATITUDE LONGITUDE LATITUDE LONGITUDE".
pub fn of_text(text: &[u8]) -> Option<(Place, Place)> {
    let text = std::str::from_utf8(text).ok()?;
    let numbers: Vec<f64> =
        text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers[..] {
        [a, b, c, d] => Some((Place::new(a, b)?, Place::new(c, d)?)),
        _ => None,
    }
}

/// Two places out of {{Latitude, Longitude}, {Latitude, Longitude}}, numbers of either kind.
pub fn of_term(mut term: &[u8]) -> Option<(Place, Place)> {
    let pair = |term: &mut &[u8]| {
        let (head, rest) = split(term, 2)?;
        *term = rest;
        (head == [SMALL_TUPLE_EXT, 2]).then_some(())
    };
    let place = |term: &mut &[u8]| {
        pair(term)?;
        Place::new(number(term)?, number(term)?)
    };
    pair(&mut term)?;
    let ends = (place(&mut term)?, place(&mut term)?);
    term.is_empty().then_some(ends)
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    (bytes.len() >= at).then(|| bytes.split_at(at))
}

fn number(term: &mut &[u8]) -> Option<f64> {
    let (tag, rest) = term.split_first()?;
    let size = match *tag {
        SMALL_INTEGER_EXT => 1,
        INTEGER_EXT => 4,
        NEW_FLOAT_EXT => 8,
        _ => return None,
    };
    let (bytes, rest) = split(rest, size)?;
    *term = rest;
    Some(match *bytes {
        [n] => n.into(),
        [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => return None,
    })
}

/// The miles, then a line "LATITUDE LONGITUDE" for each point.
pub fn text_of(route: &Route) -> String {
    let mut text = format!("{:.1}\n", route.nautical_miles);
    for point in &route.points {
        text += &format!("{:.4} {:.4}\n", point.latitude, point.longitude);
    }
    text
}

/// {Miles, [{Latitude, Longitude}]}, floats.
pub fn term_of(route: &Route) -> Vec<u8> {
    let mut term = vec![SMALL_TUPLE_EXT, 2];
    let float = |term: &mut Vec<u8>, value: f64| {
        term.push(NEW_FLOAT_EXT);
        term.extend_from_slice(&value.to_be_bytes());
    };
    float(&mut term, route.nautical_miles);
    term.push(LIST_EXT);
    term.extend_from_slice(&(route.points.len() as u32).to_be_bytes());
    for point in &route.points {
        term.extend_from_slice(&[SMALL_TUPLE_EXT, 2]);
        float(&mut term, point.latitude);
        float(&mut term, point.longitude);
    }
    term.push(NIL_EXT);
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64) -> Place {
        Place { latitude, longitude }
    }

    #[test]
    fn text_is_four_numbers_within_their_bounds() {
        assert_eq!(of_text(b"51.9 4 -33.9 18.4"), Some((place(51.9, 4.0), place(-33.9, 18.4))));
        for wrong in ["", "1 2 3", "1 2 3 4 5", "91 0 0 0", "0 181 0 0", "nan 0 0 0", "a b c d"] {
            assert_eq!(of_text(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_term_has_integers_and_floats() {
        // {{52, 4.5}, {-300, 0}} and, within the bounds, {{52, 4.5}, {-30, 0}}
        let mut term = vec![104, 2, 104, 2, 97, 52, 70];
        term.extend_from_slice(&4.5f64.to_be_bytes());
        term.extend_from_slice(&[104, 2, 98]);
        let head = term.len();
        term.extend_from_slice(&(-30i32).to_be_bytes());
        term.extend_from_slice(&[97, 0]);
        assert_eq!(of_term(&term), Some((place(52.0, 4.5), place(-30.0, 0.0))));
        for cut in 0..term.len() {
            assert_eq!(of_term(&term[..cut]), None);
        }
        term[head..head + 4].copy_from_slice(&(-300i32).to_be_bytes());
        assert_eq!(of_term(&term), None);
    }
}
