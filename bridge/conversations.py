"""The channels of all workers, joined to the node, the settings and the checkpoints of the bridge.

A worker says what it says as a process of the node: its own pid. What it may say, and what of its
state is kept, is its role's, as the settings are at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

import trio

from bridge.config import CallbackSettings, Config, ConfigError
from bridge.etf import Atom
from bridge.links.links import Links
from bridge.node import Node
from bridge.ops.answers import Term, atom_keys
from bridge.workers.channel.callbacks import Callbacks
from bridge.workers.channel.channel import Channel
from bridge.workers.channel.packets import Code, NotHad
from bridge.workers.channel.policy import CallbackPolicy
from bridge.workers.channel.states import States
from bridge.workers.checkpoints import moving
from bridge.workers.checkpoints.keeper import Keeper
from bridge.workers.checkpoints.sealing import AesGcm, Plain, read_key
from bridge.workers.checkpoints.store import Place, Store, StoreFailed
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.worker import Worker


class Conversations:
    """Opens a channel for each life of a worker. `figures`: the relay's counters of a worker id."""

    def __init__(self, config: Config, node: Node, figures: Callable[[int], Any]) -> None:
        self._config = config
        self._node = node
        self._figures = figures
        self._nursery: trio.Nursery | None = None
        self.links = Links()
        self.keeper = Keeper(lambda: _open_store(config))

    async def start(self, nursery: trio.Nursery) -> None:
        """Run channels in `nursery` from now on. Raises ConfigError: the store cannot be opened,
        and a role wants it.
        """
        self._nursery = nursery
        if any(role.checkpoint.keep for role in self._config.roles.values()):
            await self.keeper.open()

    async def aclose(self) -> None:
        await self.keeper.aclose()

    def open(self, worker: Worker, sock: socket) -> Channel:
        """The channel of a life that begins."""
        assert self._nursery is not None
        place, life = Place(worker.plan.name, worker.index), worker.id

        def done() -> int:
            figures = self._figures(life)
            return figures.done if figures else 0

        def process() -> Any:
            registration = worker.registration
            return self._node.router.table.find(registration.pid) if registration else None

        channel = Channel(
            sock,
            worker_id=life,
            role=worker.plan.name,
            settings=lambda: worker.plan.config.callback,
            peers=lambda send: self.links.join(
                life, worker.plan.name, lambda: worker.plan.config.peers, send
            ),
            checkpoints=lambda: worker.plan.config.checkpoint,
            atoms=lambda: worker.plan.config.atoms,
            policy=self._policy,
            callbacks=Callbacks(self._node, process),
            states=lambda send: States(
                self.keeper,
                place,
                lambda: worker.plan.config.checkpoint,
                send=send,
                done=done,
            ),
            broke=worker.broke_channel,
            said=worker.keep_line,
        )
        self._nursery.start_soon(channel.run)
        return channel

    def _policy(self, settings: CallbackSettings) -> CallbackPolicy:
        return CallbackPolicy(
            allow=settings.allow,
            pids=settings.pids,
            own=self._node.name,
            connected=lambda node: self._node.connections.peers.connection_of(node) is not None,
        )

    # ---- what operators ask; each raises NotHad

    async def checkpoint(self, worker: Worker) -> Term:
        """Have a worker save now: what was kept."""
        kind, size = await moving.states_of(worker).checkpoint()
        return atom_keys({"kind": Atom(kind.name.lower()), "bytes": size})

    async def trouble(self, worker: Worker, hook: str, value: int, jobs: int) -> Term:
        """Switch a hook on in a worker whose role allows it."""
        if not worker.plan.config.chaos:
            why = f"its role has no hooks: [roles.{worker.plan.name}] chaos = true, then restart"
            raise NotHad(Code.REFUSED, why)
        await moving.states_of(worker).trouble(hook, value, jobs)
        return atom_keys({"worker": worker.id, "hook": hook})

    async def move(
        self, supervisor: PortSupervisor, source: Worker, target: Worker, how: moving.How
    ) -> Term:
        """Move the state of one worker to another: what was moved."""
        moved = await moving.move(self.keeper, supervisor.until, source, target, how)
        return atom_keys(moved)


def _open_store(config: Config) -> Store:
    """Raises ConfigError."""
    path, key_path = config.checkpoint_paths()

    def error(key: str, value: object, rule: str, mend: str) -> ConfigError:
        return ConfigError(
            file=config.file, key=f"checkpoints.{key}", value=value, rule=rule, mend=mend
        )

    try:
        sealer = Plain() if key_path is None else AesGcm(read_key(key_path))
    except ImportError as missing:
        mend = "pip install 'ringbridge[encryption]'"
        raise error("key_file", key_path, "encryption needs `cryptography`", mend) from missing
    except (OSError, ValueError) as wrong:
        mend = "Make one: head -c 32 /dev/urandom > FILE; chmod 600 FILE"
        raise error("key_file", key_path, str(wrong), mend) from wrong
    try:
        return Store(path, sealer=sealer, bytes_max=config.checkpoints.bytes_max)
    except StoreFailed as failed:
        mend = "Correct file and key_file, or take the file away: the state in it is lost then"
        raise error("file", path, str(failed), mend) from failed
