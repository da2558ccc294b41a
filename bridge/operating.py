"""What an operator may ask of a running bridge, in Python's words; the WorkerRegistry asks it.

Each method says what it has begun or changed, as terms, and raises ConfigError for what it
refuses: then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from bridge.config import Change
from bridge.etf import Atom
from bridge.fabric.recording import RecordEnd
from bridge.fabric.relay import BreakerForce, Relay
from bridge.ops.answers import Term, atom_keys
from bridge.reloading import Reloading
from bridge.workers.port_supervisor import PortSupervisor

log = structlog.get_logger("ringbridge")

BREAKER_FORCES = {
    "open": BreakerForce.OPEN,
    "close": BreakerForce.CLOSED,
    "auto": BreakerForce.AUTO,
}


class Operator:
    """The requests that change things; each leaves one line in the log."""

    def __init__(self, reloading: Reloading, supervisor: PortSupervisor, relay: Relay) -> None:
        self._reloading = reloading
        self._supervisor = supervisor
        self._relay = relay

    def reload(self) -> list[Term]:
        return _described(self._reloading.reload())

    def configure(self, key: str, value: Any) -> list[Term]:
        return _described(self._reloading.configure(key, value))

    def scale(self, role: str, workers: int) -> list[Term]:
        """So many workers of a role, until the next reload: those with the highest places end."""
        self._number(role)
        return self.configure(f"roles.{role}.workers", workers)

    def upgrade(self, role: str, command: Sequence[str] | None) -> Term:
        return atom_keys(self._reloading.upgrade(role, command).describe())

    def describe_upgrade(self, role: str) -> Term:
        """The last upgrade of the role, or None."""
        upgrade = self._reloading.upgrades.get(role)
        return None if upgrade is None else atom_keys(upgrade.describe())

    def close_role(self, role: str, closed: bool) -> None:
        """Drain a role, or resume it."""
        self._supervisor.close_role(self._number(role), closed)
        log.info("role drains: no new jobs" if closed else "role takes jobs again", role=role)

    def close_node(self, closed: bool) -> None:
        """The same of all roles."""
        for plan in self._supervisor.plans:
            self._supervisor.close_role(plan.id, closed)
        log.info("all roles drain: no new jobs" if closed else "all roles take jobs again")

    def force_breaker(self, target: str | int, how: str) -> None:
        """Hold the breaker of a role, or of the worker with that id, or let it go."""
        if isinstance(target, str):
            role, worker_id = self._number(target), None
        else:
            worker = self._supervisor.find(target)
            if worker is None:
                rule = f"no worker has the id {target}"
                mend = ":list and `ringbridge status` show them"
                raise self._reloading.error("breaker", rule, mend)
            role, worker_id = worker.plan.id, target
        self._relay.force_breaker(role, worker_id, BREAKER_FORCES[how])
        log.info("circuit breaker forced", of=target, how=how)

    def attach(self, role: str) -> Term:
        """A place in a role for a worker that somebody starts by hand."""
        number = self._number(role)
        try:
            offer = self._supervisor.desk.offer(self._supervisor.plan(number))
        except OSError as error:
            mend = "a folder for temporary files is needed, which TMPDIR names"
            raise self._reloading.error("attach", f"no socket: {error}", mend) from error
        return atom_keys({"socket": offer.socket, "token": offer.token})

    def record(self, how: str) -> Term:
        """End the recording that `serve --record` began ("stop"), or say how far it is."""
        figures = self._relay.recording()
        if figures is None:
            mend = "start the bridge by `serve --record FILE`: a recording begins with it"
            raise self._reloading.error("record", "nothing is being recorded", mend)
        if how == "stop" and not figures.over:
            self._relay.stop_recording()
            log.info("recording stops", bytes=figures.bytes)
        state = "done" if figures.done else "writing" if figures.over else "recording"
        end = RecordEnd(figures.end).words if figures.over else None
        return atom_keys({"bytes": figures.bytes, "state": Atom(state), "ended": end})

    def _number(self, role: str) -> int:
        plan = self._supervisor.role(role)
        if plan is None:
            names = ", ".join(plan.name for plan in self._supervisor.plans)
            raise self._reloading.error(
                f"roles.{role}", "there is no such role", f"The roles are: {names}"
            )
        return plan.id


def _described(changes: Sequence[Change]) -> list[Term]:
    """A map for each change; a whole role is told by nothing but its name."""
    return [
        atom_keys({"key": change.key, "was": _value(change.was), "now": _value(change.now)})
        for change in changes
    ]


def _value(value: Any) -> Term:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return [_value(item) for item in value]
        case dict():
            return {key.encode(): _value(item) for key, item in value.items()}
        case _:  # a table
            return Atom("table")
