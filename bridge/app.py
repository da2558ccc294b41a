"""The bridge as a whole: what is opened in which order, and how it all ends.

Start: listen (nobody is accepted yet), register at epmd, which gives the creation; then the relay,
the node with its services, the roles and their workers; last the door is opened, so that every name
answers before the first peer can ask.

Stop: no new job (callers, old and new, are answered :draining); the workers finish what they have;
then every service gives its watchers DOWN shutdown, and the relay closes what is left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

import bridge
from bridge.config import Config, ConfigError
from bridge.dist.cookie import COOKIE_VARIABLE, Cookie
from bridge.dist.epmd_client import EpmdClient, random_creation
from bridge.dist.finding import Places
from bridge.dist.flags import ABLE, OFFERED
from bridge.dist.handshake_events import Identity
from bridge.dist.names import split_node_name
from bridge.door import door
from bridge.fabric.recording import Recording, RecordingError
from bridge.fabric.relay import Relay
from bridge.limits import relay_limits
from bridge.node import Node
from bridge.node.inspection import Application, Inspection, publish_answers, traffic_of
from bridge.ops import certificates, descriptors, metrics_page, published
from bridge.ops.errors import NoRecording
from bridge.reloading import Current, Reloading
from bridge.running import Bridge
from bridge.workers.environment import close_memory_to_workers
from bridge.workers.handshake_driver import RolePlan

log = structlog.get_logger("ringbridge")

LISTEN_BACKLOG = 128

# What observer and LiveDashboard show among the applications of this node.
APPLICATION = Application("ringbridge", "Hands work to native workers", bridge.__version__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a script wants to know once the bridge answers."""

    name: str
    port: int
    os_pid: int


async def serve(
    config: Config,
    *,
    name: str,
    cookie: Cookie,
    hide: Sequence[Path] = (),
    record: Recording | None = None,
    ready: Callable[[Ready], None] = lambda ready: None,
) -> None:
    """Run the bridge until SIGTERM or SIGINT. A second signal skips the drain.

    `hide`: files that no worker may read, above all the one that holds the cookie.

    `record`: what the relay hears and says is written down there (docs/replay.md).

    Raises ConfigError (a role's program, a limit, the port), EpmdError and NoRecording
    before anything has started.
    """
    plans = [
        RolePlan(
            number, role, config.role_argv(role), str(config.role_cwd(role)), config.role(role)
        )
        for number, role in enumerate(config.roles)
    ]
    descriptors.raise_limit(config)
    close_memory_to_workers()
    async with AsyncExitStack() as stack:
        listeners = await listen(config)
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        scraped = await metrics_page.listen(config)
        for listener in scraped:
            stack.push_async_callback(listener.aclose)
        port: int = listeners[0].socket.getsockname()[1]
        tls = stack.enter_context(certificates.opened(config))
        places, creation = await stack.enter_async_context(registered(config, name, port))
        try:
            relay = Relay(node=name, creation=creation, limits=relay_limits(config), record=record)
        except RecordingError as error:
            raise NoRecording(str(error)) from error
        stack.callback(relay.close)
        if record is not None:
            log.warning("recording, payloads and answers included", file=str(record.path))
        # Until here a signal simply ends the process: there is nothing to be drained yet.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        hang_ups = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP))
        current = Current(config)
        # Two nurseries: what carries the signals outlives what needs them to end in order.
        async with trio.open_nursery() as carrying:
            node = Node(
                Identity(name, creation, ABLE if config.node.atom_cache else OFFERED),
                cookie,
                relay,
                nursery=carrying,
                resolver=places,
                policy=door(lambda: current.config),
                tls=tls,
            )
            publish_answers(
                Inspection(node, application=APPLICATION, traffic=lambda: traffic_of(relay))
            )
            running = Bridge(
                current, plans, relay=relay, node=node, places=places, tls=tls, hide=hide
            )
            node.exports.merge(published.exports(running.status))
            carrying.start_soon(running.feed)
            if scraped:
                carrying.start_soon(metrics_page.serve, scraped, running.metrics())
            async with trio.open_nursery() as nursery:
                await running.start(nursery)
                nursery.start_soon(reload_on_sighup, hang_ups, running.reloading)
                nursery.start_soon(node.serve, listeners)
                running.reloading.keep_connected()
                log.info("ready", node=name, port=port, roles=[plan.name for plan in plans])
                ready(Ready(name, port, os.getpid()))
                await _stop_signal(signals)
                nursery.start_soon(_second_signal, signals, nursery.cancel_scope)
                await running.stop()
                nursery.cancel_scope.cancel()
            await running.end_services()
            carrying.cancel_scope.cancel()
    log.info("stopped", node=name)


async def listen(config: Config) -> list[trio.SocketListener]:
    """Open the listen queue; nobody is accepted yet. Raises ConfigError."""
    node = config.node
    try:
        return await trio.open_tcp_listeners(node.port, host=node.listen, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise ConfigError(
            file=config.file,
            key="node.listen",
            value=f"{node.listen} port {node.port}",
            rule=f"it cannot be listened on: {os.strerror(error.errno or 0)}",
            mend="Give another listen or port, or stop what holds it (ss -ltnp shows it)",
        ) from error


@asynccontextmanager
async def registered(config: Config, name: str, port: int) -> AsyncIterator[tuple[Places, int]]:
    """Be found while the block runs: how others are found, and our creation. Raises EpmdError."""
    alive, _ = split_node_name(name)
    match config.node.epmd:
        case "none":
            yield Places(config.node.peers), random_creation()
        case if_absent:
            epmd = EpmdClient.from_environ(if_absent=if_absent)
            async with epmd.registration(alive, port) as creation:
                yield Places(config.node.peers, epmd), creation


def forget_cookie_variable() -> None:
    """Take the cookie out of the environment, so that no process that we start inherits it."""
    os.environ.pop(COOKIE_VARIABLE, None)


async def reload_on_sighup(hang_ups: Any, reloading: Reloading) -> None:
    """Read the settings and the certificates again at every SIGHUP, for ever."""
    async for _ in hang_ups:
        try:
            reloading.reload()
        except ConfigError as error:
            log.error("settings not reloaded, nothing has changed", why=str(error))


async def _stop_signal(signals: Any) -> None:
    async for number in signals:
        log.info("stop asked", signal=signal.Signals(number).name)
        return


async def _second_signal(signals: Any, scope: trio.CancelScope) -> None:
    async for number in signals:
        log.warning("stop asked again: not waiting any longer", signal=signal.Signals(number).name)
        scope.cancel()
