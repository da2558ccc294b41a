"""Names and calls as Elixir writes them: `inspect/1` of an atom, `Exception.format_mfa/3`."""

from __future__ import annotations

import re
from typing import Any

from bridge.etf import Map
from bridge.node.inspection.seen import Seen
from bridge.node.process.details import Mfa

_PLAIN_FUNCTION = re.compile(r"[a-z_][A-Za-z0-9_]*[?!]?", re.ASCII)


def format_mfa(mfa: Mfa) -> str:
    """`Ringbridge.Worker.init/1`, `:proc_lib.init_p/5`, `:"my.module"."Class.run"/2`."""
    module, function, arity = mfa
    name = function.name
    if not _PLAIN_FUNCTION.fullmatch(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{module!r}.{name}/{arity}"


def shown_to_elixir(seen: Seen) -> bytes:
    """What a process is called in a list: its name, else its label, else its initial call."""
    if seen.name is not None:
        return repr(seen.name).encode()
    if isinstance(seen.details.label, bytes):
        return seen.details.label
    if seen.details.label is not None:
        return repr(seen.details.label).encode()
    return format_mfa(seen.initial_call).encode()


def get(mapping: Any, key: Any, default: Any = None) -> Any:
    """`mapping[key]` of a decoded map of either kind, and of what is no map at all."""
    return mapping.get(key, default) if isinstance(mapping, dict | Map) else default
