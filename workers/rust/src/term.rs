//! Whether bytes are one whole external term (erl_ext_dist), walked without building it. The rules
//! are those of csrc/core/term.c, by which the relay walks what leaves.
//!
//! Terms are counted instead of recursed into, so depth costs nothing.

// Tags, as erl_ext_dist spells them.
const RECORD_EXT: u8 = 67;
const NEW_FLOAT_EXT: u8 = 70;
const BIT_BINARY_EXT: u8 = 77;
const NEW_PID_EXT: u8 = 88;
const NEW_PORT_EXT: u8 = 89;
const NEWER_REFERENCE_EXT: u8 = 90;
const SMALL_INTEGER_EXT: u8 = 97;
const INTEGER_EXT: u8 = 98;
const FLOAT_EXT: u8 = 99;
const ATOM_EXT: u8 = 100;
const REFERENCE_EXT: u8 = 101;
const PORT_EXT: u8 = 102;
const PID_EXT: u8 = 103;
const SMALL_TUPLE_EXT: u8 = 104;
const LARGE_TUPLE_EXT: u8 = 105;
const NIL_EXT: u8 = 106;
const STRING_EXT: u8 = 107;
const LIST_EXT: u8 = 108;
const BINARY_EXT: u8 = 109;
const SMALL_BIG_EXT: u8 = 110;
const LARGE_BIG_EXT: u8 = 111;
const NEW_FUN_EXT: u8 = 112;
const EXPORT_EXT: u8 = 113;
const NEW_REFERENCE_EXT: u8 = 114;
const SMALL_ATOM_EXT: u8 = 115;
const MAP_EXT: u8 = 116;
const ATOM_UTF8_EXT: u8 = 118;
const SMALL_ATOM_UTF8_EXT: u8 = 119;
const V4_PORT_EXT: u8 = 120;

/// 255 characters of four bytes.
const ATOM_BYTES_MAX: usize = 1020;
const REFERENCE_WORDS_MAX: usize = 5;

/// Are these the bytes of one term, without the leading 131, and nothing behind it?
pub fn is_one(bytes: &[u8]) -> bool {
    let (mut rest, mut pending) = (bytes, 1u64);
    while pending > 0 {
        // Each term takes a byte at least.
        if pending > rest.len() as u64 {
            return false;
        }
        match step(rest) {
            Some((own, inside)) if own <= rest.len() => {
                rest = &rest[own..];
                pending = pending - 1 + inside;
            }
            _ => return false,
        }
    }
    rest.is_empty()
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?))
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    Some(be16(bytes, at)? << 16 | be16(bytes, at + 2)?)
}

/// The first term's own bytes, which may be more than there are, and how many terms follow inside
/// it. Pids, ports and references are taken whole, with their node.
fn step(t: &[u8]) -> Option<(usize, u64)> {
    let byte = |at: usize| t.get(at).copied().map(usize::from);
    let leaf = |bytes: usize| Some((bytes, 0));
    let terms = |bytes: usize, inside: usize| Some((bytes, inside as u64));
    match *t.first()? {
        NIL_EXT => leaf(1),
        SMALL_INTEGER_EXT => leaf(2),
        INTEGER_EXT => leaf(5),
        NEW_FLOAT_EXT => leaf(9),
        FLOAT_EXT => leaf(32),
        SMALL_ATOM_EXT | SMALL_ATOM_UTF8_EXT => leaf(2 + byte(1)?),
        ATOM_EXT | ATOM_UTF8_EXT | STRING_EXT => leaf(3 + be16(t, 1)?),
        BINARY_EXT => leaf(5 + be32(t, 1)?),
        BIT_BINARY_EXT | LARGE_BIG_EXT => leaf(6 + be32(t, 1)?),
        SMALL_BIG_EXT => leaf(3 + byte(1)?),
        SMALL_TUPLE_EXT => terms(2, byte(1)?),
        LARGE_TUPLE_EXT => terms(5, be32(t, 1)?),
        LIST_EXT => terms(5, be32(t, 1)? + 1),
        MAP_EXT => terms(5, 2 * be32(t, 1)?),
        EXPORT_EXT => terms(1, 3),
        // Size, arity, uniq, index, number of free variables; then module, old index, old uniq, pid
        // and the free variables as terms.
        NEW_FUN_EXT => terms(30, 4 + be32(t, 26)?),
        RECORD_EXT => terms(6, 2 + 2 * be32(t, 1)?),
        // These begin with their node, an atom; their numbers follow it.
        NEW_PID_EXT | V4_PORT_EXT => leaf(1 + atom(t.get(1..)?)? + 12),
        PID_EXT => leaf(1 + atom(t.get(1..)?)? + 9),
        NEW_PORT_EXT => leaf(1 + atom(t.get(1..)?)? + 8),
        PORT_EXT | REFERENCE_EXT => leaf(1 + atom(t.get(1..)?)? + 5),
        tag @ (NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT) => {
            let words = be16(t, 1)?;
            let creation = if tag == NEWER_REFERENCE_EXT { 4 } else { 1 };
            let node = atom(t.get(3..)?)?;
            (words <= REFERENCE_WORDS_MAX).then_some((3 + node + creation + 4 * words, 0))
        }
        _ => None,
    }
}

/// Bytes of the atom that these begin with.
fn atom(t: &[u8]) -> Option<usize> {
    match *t.first()? {
        SMALL_ATOM_EXT | SMALL_ATOM_UTF8_EXT => Some(2 + usize::from(*t.get(1)?)),
        ATOM_EXT | ATOM_UTF8_EXT => {
            let size = be16(t, 1)?;
            (size <= ATOM_BYTES_MAX).then_some(3 + size)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[u8] = b"w\x03a@b";

    fn whole() -> Vec<Vec<u8>> {
        let with_node = |head: &[u8], numbers: usize| [head, NODE, &vec![7; numbers]].concat();
        vec![
            b"j".to_vec(),
            b"a\x01".to_vec(),
            b"b\0\0\0\x01".to_vec(),
            [&b"F"[..], &[0; 8]].concat(),
            [&b"c"[..], &[b'0'; 31]].concat(),
            b"w\x02ok".to_vec(),
            b"s\x02ok".to_vec(),
            b"v\0\x02ok".to_vec(),
            b"d\0\x02ok".to_vec(),
            b"k\0\x03abc".to_vec(),
            b"m\0\0\0\x02ab".to_vec(),
            b"M\0\0\0\x01\x03\xe0".to_vec(),
            b"n\x02\x00\x01\x02".to_vec(),
            b"o\0\0\0\x02\x00\x01\x02".to_vec(),
            b"h\x02w\x02oka\x01".to_vec(),
            b"i\0\0\0\x01a\x01".to_vec(),
            b"l\0\0\0\x02a\x01a\x02j".to_vec(),
            b"t\0\0\0\x01a\x01h\x00".to_vec(),
            b"qw\x01mw\x01fa\x02".to_vec(),
            [&b"p"[..], &[0; 28], b"\x01", b"w\x01ma\0a\0", &with_node(b"X", 12), b"j"].concat(),
            b"C\0\0\0\x01\0w\x01rw\x01vw\x01ka\x01".to_vec(),
            with_node(b"X", 12),
            with_node(b"x", 12),
            with_node(b"g", 9),
            with_node(b"Y", 8),
            with_node(b"f", 5),
            with_node(b"e", 5),
            with_node(b"Z\0\x03", 4 + 12),
            with_node(b"r\0\x02", 1 + 8),
        ]
    }

    #[test]
    fn a_term_is_one_when_it_is_whole_and_nothing_follows() {
        for term in whole() {
            assert!(is_one(&term), "{term:?}");
            for end in 0..term.len() {
                assert!(!is_one(&term[..end]), "{term:?} cut at {end}");
            }
            assert!(!is_one(&[&term[..], b"j"].concat()), "{term:?} and one more");
        }
    }

    #[test]
    fn what_is_no_term_is_none() {
        let long_atom = [&b"d\x03\xfd"[..], &[b'x'; 1021], &[0; 12]].concat();
        for bytes in [
            &b""[..],
            b"\x83a\x01",                     // the version is not of the term
            b"R\x00",                         // an atom's place in a cache
            b"h\xff",                         // more elements than bytes
            b"i\xff\xff\xff\xff",             //
            b"m\xff\xff\xff\xff",             // more bytes than there are
            b"Z\0\x06w\x03a@b",               // more words than a reference has
            b"Xa\x01aaaaaaaaaaaa",            // a node that is no atom
            &[b"X", &long_atom[..]].concat(), // nor one of 255 characters at most
        ] {
            assert!(!is_one(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut deep = b"h\x01".repeat(1 << 20);
        deep.push(b'j');
        assert!(is_one(&deep));
    }
}
