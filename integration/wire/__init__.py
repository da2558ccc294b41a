"""A peer that breaks the rules of the wire, on purpose, byte by byte (DESIGN, section 3)."""
