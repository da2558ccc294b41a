"""Who is let in as a remote worker, and what it costs when the bridge itself fails at one."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from bridge.config import Config, LimitSettings, LinkSettings, NodeConfig, RoleConfig
from bridge.config.role import RemoteSettings
from bridge.dist import control as c
from bridge.etf import Atom, Pid, Reference
from bridge.fabric.relay import LinkConfig, LinkFds
from bridge.node.signals.ids import Ids
from bridge.node.signals.router import Router
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.remote import messages
from bridge.workers.remote.desk import WAY_S
from bridge.workers.remote.driver import RemoteDriver
from bridge.workers.remote.service import NAMES, RemoteWorkers
from bridge.workers.remote.slot import Slot

APP = "app@host"
PID = Pid(Atom(APP), 1, 0, 7)
PLAN = RolePlan(1, "reports", ("worker",), "/", RoleConfig())


class PlayedRelay:
    """A relay without room for one more link."""

    def create_link(self, role: int, worker_id: int, config: LinkConfig) -> LinkFds:
        raise OSError(errno.EMFILE, "too many open files")


@dataclass
class PlayedSupervisor:
    """Hires whoever comes, and starts nobody by itself."""

    drivers: list[RemoteDriver] = field(default_factory=list)
    stopping: bool = False

    def role(self, name: str) -> RolePlan | None:
        return PLAN if name == PLAN.name else None

    def hire(self, plan: RolePlan, driver: RemoteDriver, *, remote: Any) -> Any:
        self.drivers.append(driver)
        number = len(self.drivers)
        return SimpleNamespace(id=number, fate="ended", broke_messages=lambda why: None)

    def begin(self, story: Callable[[], Awaitable[None]]) -> None: ...


class Scene:
    """The service on a node whose peer is APP."""

    def __init__(self, *nodes: str) -> None:
        self.sent: list[tuple[c.ControlMessage, Any]] = []
        self.monitors: list[c.MonitorP] = []
        self.router = Router(Ids("us@host", 7), self._emit)
        role = RoleConfig(remote=RemoteSettings(nodes=nodes or (APP,)))
        self.config = Config(
            file=Path("ringbridge.toml"),
            node=NodeConfig(),
            limits=LimitSettings(),
            link=LinkSettings(),
            roles={"reports": role},
        )
        self.supervisor = PlayedSupervisor()
        road = SimpleNamespace(has_room=lambda node: True)
        self.service = RemoteWorkers(
            self.router,
            cast(Any, PlayedRelay()),
            cast(PortSupervisor, self.supervisor),
            cast(Any, road),
            lambda: self.config,
        )
        self.service.start()

    def _emit(self, node: str, message: c.ControlMessage, payload: Any) -> bool:
        self.sent.append((message, payload))
        if isinstance(message, c.MonitorP):
            self.monitors.append(message)
        return True

    def hello(self, **changes: Any) -> None:
        said = {
            "version": 1,
            "ref": Reference(Atom(APP), 7, (1, 2, 3)),
            "pid": PID,
            "role": Atom("reports"),
            "slots": 2,
            "credit": 8,
            "kit": b"elixir",
            "kit_version": (0, 1),
            **changes,
        }
        self.receive(Atom(NAMES[0]), messages.message("hello", **said))

    def set_role(self, **changes: Any) -> None:
        """The settings are read again."""
        role = msgspec.structs.replace(self.config.roles["reports"], **changes)
        self.config = msgspec.structs.replace(self.config, roles={"reports": role})

    def end_process(self, reason: str) -> None:
        """The worker's process ends, or its node goes."""
        if reason == "noconnection":
            self.router.connection_lost(APP)
            return
        (watch,) = self.monitors
        control = c.MonitorPExit(PID, watch.sender, watch.ref, Atom(reason))
        self.router.receive(APP, control, lambda: None)

    def receive(self, to: Any, message: Any) -> None:
        sender = Pid(Atom(APP), 1, 0, 7)
        control = c.RegSend(sender, to) if isinstance(to, Atom) else c.Send(sender, to)
        self.router.receive(APP, control, lambda: message)

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What the worker was told since the last look."""
        told = [
            (payload[1].name, {key.name: value for key, value in payload[2].items()})
            for _, payload in self.sent
            if messages.is_ours(payload)
        ]
        self.sent.clear()
        return told

    def let_in(self) -> Pid:
        self.hello()
        ((kind, said),) = self.told()
        assert kind == "welcome"
        return cast(Pid, said["desk"])


def fail(*_its: Any, **_more: Any) -> Any:
    raise KeyError("a bug of the bridge")


def refusal(scene: Scene) -> dict[str, Any]:
    ((kind, said),) = scene.told()
    assert kind == "refused"
    return said


@pytest.mark.parametrize("takes", [[[]], [{}], 16_384 * [Atom("parts")]])
def test_a_hello_with_what_has_no_place_in_it_is_refused_and_all_goes_on(takes: Any) -> None:
    scene = Scene()
    scene.hello(ops=[{Atom("opcode"): 1, Atom("name"): b"a", Atom("takes"): takes}])
    assert refusal(scene)["reason"] == Atom("bad_hello")
    scene.let_in()


def test_of_a_node_that_may_not_serve_the_role_nothing_else_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene("other@host")
    monkeypatch.setattr(messages, "read_hello", lambda message: pytest.fail("it was read"))
    scene.hello(ops=[[]])
    said = refusal(scene)
    assert said["reason"] == Atom("unauthorized")
    assert said["again"] is True


def test_where_the_bridge_fails_at_a_hello_only_that_hello_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(messages, "read_hello", fail)
        scene.hello()
    assert refusal(scene)["reason"] == Atom("bad_hello")
    assert [line for line in lines if line.get("exc_info")]
    with monkeypatch.context() as patch:
        patch.setattr(scene.supervisor, "hire", fail)
        scene.hello()
    assert [kind for kind, _ in scene.told()] == ["ended", "refused"]
    assert scene.service.registrations == []
    scene.let_in()


def test_where_the_bridge_fails_at_a_message_only_that_registration_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    desk, _other = scene.let_in(), scene.let_in()
    monkeypatch.setattr(messages, "read", fail)
    with capture_logs() as lines:
        scene.receive(desk, messages.message("leave"))
    ((kind, said),) = scene.told()
    assert (kind, said["reason"], said["again"]) == ("ended", Atom("stopped"), True)
    assert [line for line in lines if line.get("exc_info")]
    assert len(scene.service.registrations) == 1


@pytest.mark.parametrize(
    ("reason", "has_ended"), [("killed", True), ("normal", True), ("noconnection", False)]
)
def test_what_was_not_begun_never_will_be_where_the_process_is_known_to_have_ended(
    reason: str, has_ended: bool
) -> None:
    scene = Scene()
    scene.let_in()
    (registration,) = scene.service.registrations
    deaths: list[Any] = []
    slot = SimpleNamespace(index=0, die=lambda *its, **how: deaths.append(how))
    registration.slot_started(cast(Slot, slot))
    scene.end_process(reason)
    assert deaths == [{"has_ended": has_ended}]


def test_what_is_no_message_of_the_page_ends_nothing() -> None:
    scene = Scene()
    desk = scene.let_in()
    for stray in ((Atom("EXIT"), PID, Atom("normal")), (Reference(Atom(APP), 7, (1,)), 3), 7):
        scene.receive(desk, stray)
    assert scene.told() == []
    assert len(scene.service.registrations) == 1
    scene.receive(desk, messages.message("sing"))
    assert [kind for kind, _ in scene.told()] == ["ended"]


def test_lines_of_refusals_are_few_whatever_the_hellos_say() -> None:
    scene = Scene()
    with capture_logs() as lines:
        for n in range(50):
            scene.hello(credit=1000 + n)
    assert len(scene.told()) == 50
    assert len(lines) == 1


async def test_patience_with_a_cancelled_job_follows_the_settings() -> None:
    scene = Scene()
    scene.let_in()
    (registration,) = scene.service.registrations
    patience: list[float] = []

    def overdue(_now_s: float, patience_s: float) -> None:
        patience.append(patience_s)
        registration.end("stopped", "enough seen", again=False)

    slot = SimpleNamespace(index=0, overdue=overdue, die=lambda *its, **how: None)
    registration.slot_started(cast(Slot, slot))
    scene.set_role(cancel_term_ms=7_000, cancel_kill_ms=3_000)
    await registration.watch()
    assert patience == [10.0 + WAY_S]


async def test_a_slot_that_cannot_be_started_ends_its_registration_for_now() -> None:
    scene = Scene()
    scene.let_in()
    first, second = scene.supervisor.drivers
    for driver in (first, second):
        with pytest.raises(OSError, match=r"too many|has gone"):
            await driver.start(1, PLAN)
    ((kind, said),) = scene.told()
    assert (kind, said["reason"], said["again"]) == ("ended", Atom("stopped"), True)
    assert b"too many open files" in said["why"]
    assert scene.service.registrations == []
