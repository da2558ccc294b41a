"""What other nodes may run on the bridge itself, by rpc: it tells, and changes nothing.

iex> :rpc.call(:"ringbridge@host", Ringbridge, :status, [])
iex> :rpc.call(:"ringbridge@host", Ringbridge, :workers, [])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import bridge
from bridge.node import Exports
from bridge.ops.answers import Term, to_term

MODULE = "Ringbridge"


def exports(status: Callable[[], Mapping[str, Any]]) -> Exports:
    """The table; `status` gives the whole bridge as one record."""
    table = Exports()

    @table.function(MODULE, "status")
    def whole_status() -> Term:
        return to_term(status())

    @table.function(MODULE)
    def workers() -> Term:
        return to_term(status()["workers"])

    @table.function(MODULE)
    def version() -> Term:
        return to_term(bridge.__version__)

    return table
