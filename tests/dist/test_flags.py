"""The table of flags: complete, without a bit twice, and equal to the published numbers."""

from __future__ import annotations

from bridge.dist import flags
from bridge.dist.flags import FLAG_TABLE, Stance


def test_each_bit_and_name_stands_once_in_order() -> None:
    bits = [row.bit for row in FLAG_TABLE]
    assert bits == sorted(set(bits))
    assert len({row.name for row in FLAG_TABLE}) == len(FLAG_TABLE)
    assert all(row.why for row in FLAG_TABLE)


def test_bits_that_no_third_party_sets_are_never_offered() -> None:
    never = {row.bit for row in FLAG_TABLE if row.stance is Stance.NEVER}
    assert {0, 1, 6, 15, 21, 33, 36} <= never
    assert flags.OFFERED & 0xF8000000 == 0, "27 to 31 are reserved"


def test_the_mandatory_flags_are_otp_26s() -> None:
    assert flags.MANDATORY == 0x403070F94
    assert flags.missing_names(0x403070F94) == []
    assert flags.missing_names(0x1070F94) == ["UNLINK_ID", "V4_NC"]
    assert flags.missing_names(1 << 26) == ["UNLINK_ID", "V4_NC"]


def test_names_of_flags() -> None:
    assert flags.flag_names(flags.flag("SPAWN") | 4) == ["EXTENDED_REFERENCES", "SPAWN"]
