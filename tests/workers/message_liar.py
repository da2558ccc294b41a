"""A worker over messages that is none: `message_liar.py HOW`, for the battery's own tests.

A second implementation of the page, in another language, that breaks one rule on purpose; "honest"
breaks none of those that it serves.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from bridge.etf import Atom
from bridge.node import open_node
from bridge.workers.remote.messages import RAW, message

HOST = "127.0.0.1"
SLEEP = 2


async def main(how: str) -> None:
    bridge = os.environ["RINGBRIDGE_CONFORMANCE_BRIDGE"]
    cookie = os.environ["RINGBRIDGE_CONFORMANCE_COOKIE"]
    async with open_node(f"liar{os.getpid()}@{HOST}", cookie=cookie, listen=False) as node:

        async def live(me: Any) -> None:
            while True:
                await greet(me)
                await serve(me)

        async def greet(me: Any) -> None:
            said = {
                "version": 1,
                "ref": node.router.ids.next_ref(),
                "pid": me.pid,
                "role": b"conformance",
                "slots": 2,
                "credit": 8,
                "kit": b"liar",
                "kit_version": (1, 0),
            }
            if how == "no_credit":
                del said["credit"]
            await node.send(("remote_workers", bridge), message("hello", **said))

        async def serve(me: Any) -> None:
            beating, sleeping = trio.CancelScope(), set[int]()
            desk = None
            while True:
                match await me.receive():
                    case (_, Atom("welcome"), map_):
                        desk = map_[Atom("desk")]
                        nursery.start_soon(beat, beating, me, desk)
                    case (_, Atom("refused" | "ended"), _):
                        beating.cancel()
                        await trio.sleep(0.02)
                        return
                    case (_, Atom("job"), map_, payload):
                        number, opcode = map_[Atom("job")], map_[Atom("opcode")]
                        job(me, desk, number, opcode, payload)
                        if opcode == SLEEP:
                            sleeping.add(number)
                    case (_, Atom("cancel"), map_) if how != "deaf":
                        number = map_[Atom("job")]
                        if number in sleeping:
                            sleeping.discard(number)
                            ended = message("complete", job=number, status=Atom("cancelled"))
                            me.send(desk, ended)
                    case _:
                        pass

        def job(me: Any, desk: Any, number: int, opcode: int, payload: Any) -> None:
            if how != "unbegun":
                me.send(desk, message("started", job=number))
            if opcode == SLEEP:  # until it is cancelled
                return
            if how == "changes" and payload[0] == RAW:
                payload = (RAW, payload[1] + b"!")
            ended = (*message("complete", job=number, status=Atom("ok")), payload)
            for _ in range(2 if how == "twice" else 1):
                me.send(desk, ended)

        async def beat(scope: trio.CancelScope, me: Any, desk: Any) -> None:
            with scope:
                while how != "heartless":
                    me.send(desk, message("heartbeat", ready=True))
                    await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            await node.spawn(live)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
