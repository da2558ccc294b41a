"""Terms that a peer may send and Python cannot show: too deep for repr, too long a number for str.

They get into exceptions as keys and values; whatever fails then must be the one process that they
were sent to, never the node, and a caller must get the exception that it was promised.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from node_support import OpenNode
from services import Counter
from structlog.testing import capture_logs

from bridge.etf import Atom, decode
from bridge.node import ProcessDown, Stop

LONG = 2**20_000  # str() of it is refused by CPython
DEEP = decode(b"\x83" + b"h\x01" * 9_000 + b"j")
HOSTILE = pytest.mark.parametrize("term", [LONG, DEEP], ids=["long", "deep"])


class Fragile(Counter):
    async def handle_call(self, request: Any, sender: Any) -> Any:
        match request:
            case (Atom("look_up"), key):
                raise KeyError(key)
            case (Atom("end"), reason):
                raise Stop(reason)
            case _:
                return await super().handle_call(request, sender)


@HOSTILE
async def test_an_exception_that_cannot_be_shown_ends_its_process_only(
    open_test_node: OpenNode, term: Any
) -> None:
    async with open_test_node(services={"fragile": Fragile(), "other": Counter()}) as node:
        with trio.fail_after(60), pytest.raises(ProcessDown) as caught:
            await node.call("fragile", (Atom("look_up"), term))
        assert caught.value.reason[:2] == (Atom("exception"), b"KeyError")
        assert await node.call("other", (Atom("add"), 1)) == 1


@HOSTILE
async def test_a_reason_that_cannot_be_shown_comes_as_the_reason(
    open_test_node: OpenNode, term: Any
) -> None:
    async with open_test_node(services={"fragile": Fragile()}) as node:
        with trio.fail_after(60), pytest.raises(ProcessDown) as caught:
            await node.call("fragile", (Atom("end"), (Atom("because"), term)))
        assert caught.value.reason[0] == Atom("because")
        assert "because" in str(caught.value)


async def test_a_crash_over_a_large_term_is_a_log_line_of_bounded_length(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node(services={"fragile": Fragile()}) as node:
        with capture_logs() as logs, trio.fail_after(60), pytest.raises(ProcessDown):
            await node.call("fragile", (Atom("look_up"), b"x" * 2**20))
    [line] = [line for line in logs if line["event"] == "process crashed"]
    assert len(line["exception"]) < 20_000
    assert line["exception"].startswith("Traceback")
