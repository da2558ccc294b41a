"""What a program gets wrong with the node is told with the rule, the value and the way out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from node_support import HAS_RELAY

from bridge.etf import Atom, EncodeError, encode
from bridge.node import ANY, ChildSpec, GenServer, ProcessHandle, call, open_node

pytestmark = pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built")


class Counter(GenServer):
    @call
    def add(self, amount: int) -> int:
        return amount


def alone(**options: Any) -> Any:
    return open_node("mistaken@127.0.0.1", cookie="c", register=False, **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"services": {"x": Counter}}, TypeError, "an instance of a GenServer.*write Counter()"),
        ({"services": {"x": print}}, TypeError, "an instance of a GenServer, not <built-in"),
        (
            {"listen_port": 80000},
            ValueError,
            "0 (any free port) to 65535, not 80000",
        ),
        ({"listen_host": "192.0.2.7"}, OSError, "cannot listen on 192.0.2.7, port 0.*listen_host="),
    ],
)
async def test_a_node_that_cannot_open_says_why(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    pattern = ".*".join(map(re.escape, text.split(".*")))
    with pytest.raises(error, match=pattern):
        async with alone(**options):
            pass


async def test_a_plain_function_is_no_process() -> None:
    heard: list[Any] = []
    plain: Any = lambda me: 3  # noqa: E731

    async def watch(me: ProcessHandle) -> None:
        me.monitor(me.node.spawn_nowait(plain).pid)
        heard.append(await me.receive((Atom("DOWN"), ANY, ANY, ANY, ANY)))

    async with alone() as node:
        watcher = node.spawn_nowait(watch).pid
        await (await node.monitor(watcher)).wait()
    (*_, (_, kind, text)) = heard.pop()
    assert kind == b"TypeError"
    assert re.fullmatch(rb"a process is an async function; .*<lambda> gave 3", text)


async def test_who_waited_in_vain_is_told_for_what() -> None:
    texts: list[str] = []

    async def silent(me: ProcessHandle) -> None:
        try:
            await me.receive((Atom("never"), ANY), timeout=0.01)
        except trio.TooSlowError as error:
            texts.append(str(error))
        await trio.sleep_forever()

    async with alone() as node:
        await node.spawn(silent, name="silent")
        with pytest.raises(trio.TooSlowError, match=r"no answer from .*silent.* in 0\.05 s"):
            await node.call("silent", 1, timeout=0.05)
    assert texts == ["no message that fits in 0.01 s"]


def test_each_life_of_a_child_is_a_new_server() -> None:
    with pytest.raises(TypeError, match="give the class Counter or a function that makes one"):
        ChildSpec.server("counter", Counter())  # type: ignore[arg-type]


def test_an_annotation_that_takes_no_term_is_named() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.add, amount: no term fits the annotation 3"):

        class Wrong(GenServer):
            @call
            def add(self, amount: 3) -> None:  # type: ignore[valid-type]
                pass


def test_an_object_is_no_term() -> None:
    with pytest.raises(EncodeError, match=r"of the type object is no term; docs/terms\.md"):
        encode(object())  # type: ignore[arg-type]
