"""Ringbridge.Lanes: the service that grants lanes, and shows those that are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.etf import Atom, brief
from bridge.fabric.lanes import lane_layout
from bridge.lanes.desk import GRANT_S, LaneDesk, NotGranted, Wanted
from bridge.node import Sender
from bridge.ops.answers import ERROR, OK, Answering, BadRequest, Term, atom_keys

NAMES = ("Elixir.Ringbridge.Lanes", "lanes")
SCHEDULERS_MAX = 1_024  # of a BEAM
_KEYS = ("os_pid", "schedulers", "version", "digest")


class Lanes(Answering):
    """The answers. `connection_of`: the number of a node's connection, None without one.

    `recording`: whether the relay is being recorded, which knows no lanes. `describe`: those open.
    """

    module = "Ringbridge.Lanes"

    def __init__(
        self,
        desk: LaneDesk,
        *,
        connection_of: Callable[[str], int | None],
        recording: Callable[[], bool],
        describe: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._desk = desk
        self._connection_of = connection_of
        self._recording = recording
        self._describe = describe

    async def handle_call(self, request: Term, sender: Sender) -> Term:
        match request:
            case (Atom("open"), wanted):
                try:
                    return self._open(wanted, str(sender.pid.node))
                except BadRequest as error:
                    return (ERROR, (Atom("bad_request"), str(error).encode()))
                except NotGranted as error:
                    return (ERROR, (Atom("refused"), str(error).encode()))
        return self.answer_any(request)

    def answer(self, request: Term) -> Term:
        match request:
            case Atom("list"):
                return (OK, [atom_keys(lane) for lane in self._describe()])
        raise BadRequest(f"Ringbridge.Lanes knows {{:open, map}}, :list; not {brief(request)}")

    def statistics(self) -> Mapping[str, Any]:
        return {"lanes": len(self._desk)}

    def _open(self, asked: Term, node: str) -> Term:
        wanted, version, digest = _read(asked)
        ours = lane_layout()
        if version != ours.version:
            raise NotGranted(
                f"the bridge's lanes are of version {ours.words}, the client's of "
                f"{version >> 16}.{version & 0xFFFF}: take both of one release"
            )
        if digest != ours.digest:
            raise NotGranted("one version of lanes with two digests: one side has an edited layout")
        if self._recording():
            raise NotGranted("the relay is being recorded, and a record has no lanes")
        conn = self._connection_of(node)
        if conn is None:
            raise NotGranted(f"{node} is not connected")
        grant = self._desk.grant(node, conn, wanted)
        answer = {
            "socket": self._desk.address,
            "token": grant.token,
            "within_ms": int(GRANT_S * 1000),
        }
        return (OK, atom_keys(answer))


def _read(asked: Term) -> tuple[Wanted, int, bytes]:
    """What a BEAM says as it asks. Raises BadRequest."""
    if not isinstance(asked, dict) or set(asked) != {Atom(key) for key in _KEYS}:
        raise BadRequest(f"open takes a map with {', '.join(_KEYS)}; not {brief(asked)}")
    os_pid, schedulers, version, digest = (asked[Atom(key)] for key in _KEYS)
    if type(os_pid) is not int or not 0 < os_pid < 2**31:
        raise BadRequest(f"os_pid: a process id, not {brief(os_pid)}")
    if type(schedulers) is not int or not 0 < schedulers <= SCHEDULERS_MAX:
        raise BadRequest(f"schedulers: 1 to {SCHEDULERS_MAX}, not {brief(schedulers)}")
    if type(version) is not int or not 0 <= version < 2**32:
        raise BadRequest(f"version: a number of 32 bits, not {brief(version)}")
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise BadRequest(f"digest: 32 bytes, not {brief(digest)}")
    return Wanted(os_pid, schedulers), version, digest
