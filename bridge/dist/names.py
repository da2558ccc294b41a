"""Node names: `alive@host`, ASCII, exactly one `@`, text on both sides (dist-protocol.md, 2.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate

NAME_MAX_BYTES = 255
_GLOB = re.compile(r"[*?]|\[[^]]+\]")
_ALIVE = re.compile(r"[A-Za-z0-9_-]+\Z")  # dist.c answers `nok` to anything else before the @
_HOST = re.compile(r"[!-?A-~]+\Z")  # printable ASCII without space and @


def node_name_problem(name: str) -> str | None:
    """The rule that `name` breaks, in words, or None if it is a full node name."""
    alive, at, host = name.partition("@")
    if not at or not alive or not host or "@" in host:
        return "a node name is alive@host, with exactly one @ and text on both sides"
    if len(name) > NAME_MAX_BYTES:
        return f"a node name has at most {NAME_MAX_BYTES} bytes"
    if not _ALIVE.match(alive):
        return "the part of a node name before the @ holds only A-Z a-z 0-9 _ -"
    if not _HOST.match(host):
        return "the host part of a node name is printable ASCII"
    return None


def split_node_name(name: str) -> tuple[str, str]:
    """(alive, host) of a full node name. Raises ValueError naming the rule it breaks."""
    if problem := node_name_problem(name):
        raise ValueError(f"{name!r}: {problem}")
    alive, _, host = name.partition("@")
    return alive, host


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A predicate: is a node name one of these exact names, or does a glob (* ? [...]) match it?"""
    all_patterns = tuple(patterns)
    exact = frozenset(pattern for pattern in all_patterns if not _GLOB.search(pattern))
    globs = [re.compile(translate(p)) for p in all_patterns if p not in exact]
    return lambda name: name in exact or any(glob.match(name) for glob in globs)


def pattern_problem(pattern: str) -> str | None:
    """The rule that a full node name, or a glob of such, breaks, or None."""
    return node_name_problem(_GLOB.sub("x", pattern))


def base36(number: int) -> str:
    """A number from 0 in the digits 0-9 A-Z, as `integer_to_list(N, 36)` writes it."""
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits
