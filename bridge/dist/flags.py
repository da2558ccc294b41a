"""Distribution flags: one table that says for each bit what it is, how we treat it, and why.

Source: dist-protocol.md, 2.6 to 2.8 (dist.hrl, dist.h, dist.c of OTP 25 to 29).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import reduce
from operator import or_


class Stance(Enum):
    MANDATORY = "mandatory"  # offered, and a peer without it is refused
    OFFERED = "offered"  # offered, used when the peer has it too
    ON_REQUEST = "on request"  # the same when open_node(flags=...) asks for it
    NEVER = "never"  # not offered


@dataclass(frozen=True, slots=True)
class FlagRow:
    bit: int
    name: str
    stance: Stance
    why: str


_M, _O, _R, _N = Stance.MANDATORY, Stance.OFFERED, Stance.ON_REQUEST, Stance.NEVER

# The mandatory ones are OTP 26's list. OTP 25 demands less (neither UNLINK_ID nor V4_NC) but has
# both.
FLAG_TABLE: tuple[FlagRow, ...] = (
    FlagRow(0, "PUBLISHED", _N, "would make us visible: full mesh, global, pg, rex messages"),
    FlagRow(1, "ATOM_CACHE", _N, "obsolete"),
    FlagRow(2, "EXTENDED_REFERENCES", _M, "references of several words"),
    FlagRow(3, "DIST_MONITOR", _O, "with DIST_MONITOR_NAME: monitors cross the connection at all"),
    FlagRow(4, "FUN_TAGS", _M, "funs are their own terms"),
    FlagRow(5, "DIST_MONITOR_NAME", _O, "monitors by name, see DIST_MONITOR"),
    FlagRow(6, "HIDDEN_ATOM_CACHE", _N, "obsolete"),
    FlagRow(7, "NEW_FUN_TAGS", _M, "NEW_FUN_EXT"),
    FlagRow(8, "EXTENDED_PIDS_PORTS", _M, "wide pids and ports"),
    FlagRow(9, "EXPORT_PTR_TAG", _M, "EXPORT_EXT"),
    FlagRow(10, "BIT_BINARIES", _M, "BIT_BINARY_EXT"),
    FlagRow(11, "NEW_FLOATS", _M, "NEW_FLOAT_EXT"),
    FlagRow(12, "UNICODE_IO", _O, "io requests carry an encoding"),
    FlagRow(13, "DIST_HDR_ATOM_CACHE", _R, "an atom travels once; costs more than it saves (0011)"),
    FlagRow(14, "SMALL_ATOM_TAGS", _O, "short atom tags"),
    FlagRow(15, "DIST_HDR_INTERNAL", _N, "internal to ERTS"),
    FlagRow(16, "UTF8_ATOMS", _M, "atoms are UTF-8"),
    FlagRow(17, "MAP_TAG", _M, "MAP_EXT"),
    FlagRow(18, "BIG_CREATION", _M, "creations of 32 bits"),
    FlagRow(19, "SEND_SENDER", _O, "a send says who sent it"),
    FlagRow(20, "BIG_SEQTRACE_LABELS", _O, "any trace label; we ignore tokens"),
    FlagRow(21, "INTERNAL_21", _N, "internal to ERTS"),
    FlagRow(22, "EXIT_PAYLOAD", _O, "exit reasons travel as payload, so they may be fragmented"),
    FlagRow(23, "FRAGMENTS", _O, "big signals come in pieces; the relay puts them together"),
    FlagRow(24, "HANDSHAKE_23", _M, "handshake version 6"),
    FlagRow(25, "UNLINK_ID", _M, "unlink with an id and an acknowledgement"),
    FlagRow(26, "MANDATORY_25_DIGEST", _O, "shorthand for OTP 25's mandatory bits"),
    FlagRow(32, "SPAWN", _O, "spawn, rpc and erpc, of what the node publishes"),
    FlagRow(33, "NAME_ME", _N, "a request for a name, not an ability"),
    FlagRow(34, "V4_NC", _M, "pids, ports and references of full width"),
    FlagRow(35, "ALIAS", _O, "messages to an alias, so the answers to our calls"),
    FlagRow(36, "LOCAL_EXT", _N, "internal to ERTS"),
    FlagRow(37, "ALTACT_SIG", _O, "op 37: alias and priority signals of OTP 28 and later"),
    FlagRow(38, "NATIVE_RECORDS", _N, "OTP 29 sends records whether it is set or not"),
)


def _bits(*stances: Stance) -> int:
    return reduce(or_, (1 << row.bit for row in FLAG_TABLE if row.stance in stances))


def flag(name: str) -> int:
    """The value of the flag called `name`; KeyError if the table has none."""
    return _VALUES[name]


_VALUES = {row.name: 1 << row.bit for row in FLAG_TABLE}
MANDATORY = _bits(Stance.MANDATORY)
OFFERED = _bits(Stance.MANDATORY, Stance.OFFERED)
ABLE = OFFERED | _bits(Stance.ON_REQUEST)
NAME_ME = flag("NAME_ME")
DIGEST_25 = flag("MANDATORY_25_DIGEST")
ALIAS = flag("ALIAS")
ALTACT_SIG = flag("ALTACT_SIG")
DIST_HDR_ATOM_CACHE = flag("DIST_HDR_ATOM_CACHE")
SEND_SENDER = flag("SEND_SENDER")
SPAWN = flag("SPAWN")
EXIT_PAYLOAD = flag("EXIT_PAYLOAD")
_MANDATORY_25 = 0x1070F94  # what the digest bit stands for, in every release


def expand_digest(flags: int) -> int:
    """A peer that sets MANDATORY_25_DIGEST has all of OTP 25's mandatory bits (2.7)."""
    return flags | _MANDATORY_25 if flags & DIGEST_25 else flags


def missing_names(flags: int, required: int = MANDATORY) -> list[str]:
    """Names of the required flags that the (expanded) `flags` lack, lowest bit first."""
    lacking = required & ~expand_digest(flags)
    return [row.name for row in FLAG_TABLE if lacking >> row.bit & 1]


def flag_names(flags: int) -> list[str]:
    """Names of the flags set in `flags`, lowest bit first; unknown bits are left out."""
    return [row.name for row in FLAG_TABLE if flags >> row.bit & 1]


def negotiated(ours: int, theirs: int) -> int:
    """The abilities both sides have."""
    return ours & expand_digest(theirs)
