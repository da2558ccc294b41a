"""What a supervisor knows of a child: how it is started, restarted and stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from bridge.etf import Atom, Pid
from bridge.node.process.server import GenServer

if TYPE_CHECKING:
    from bridge.node.node import Node

Term = Any
RestartType = Literal["permanent", "transient", "temporary"]
Shutdown = float | Literal["brutal_kill", "infinity"]
SHUTDOWN_S = 5.0


class Starter(Protocol):
    """Starts one life of a child."""

    @property
    def module(self) -> str: ...
    @property
    def is_supervisor(self) -> bool: ...
    async def __call__(self, node: Node, parent: Pid) -> Pid:
        """Linked with `parent`. Raises what its start raises."""


@dataclass(frozen=True, slots=True)
class ServerChild:
    """A GenServer: `make` gives a new one for each life."""

    make: Callable[[], GenServer]
    name: str | None = None
    server_class: type[GenServer] = GenServer

    @property
    def module(self) -> str:
        return self.server_class.__name__

    @property
    def is_supervisor(self) -> bool:
        return self.server_class.supervises

    async def __call__(self, node: Node, parent: Pid) -> Pid:
        return await node.start(self.make(), name=self.name, parent=parent)


@dataclass(frozen=True, slots=True)
class FunctionChild:
    """A function that is run as a process, as `node.spawn` does."""

    function: Callable[..., Awaitable[object]]
    args: tuple[Any, ...] = ()
    name: str | None = None
    is_supervisor: bool = False

    @property
    def module(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    async def __call__(self, node: Node, parent: Pid) -> Pid:
        return node.spawn_nowait(self.function, *self.args, name=self.name, parent=parent).pid


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """OTP's child specification. `ChildSpec.server` and `ChildSpec.function` make one.

    `id` names the child in its supervisor: an atom (a str becomes one) or any other term.
    `restart`: permanent always; transient unless it ended with `normal`, `shutdown` or
    `{shutdown, _}`; temporary never, and it is forgotten then. `shutdown`: seconds that it has to
    end after the exit signal `shutdown` until it is killed; by default 5, for a supervisor without
    end. Raises ValueError for what is none of these.
    """

    id: Term
    start: Starter
    restart: RestartType = "permanent"
    shutdown: Shutdown | None = None

    def __post_init__(self) -> None:
        if isinstance(self.id, str):
            object.__setattr__(self, "id", Atom(self.id))
        if self.shutdown is None:
            default: Shutdown = "infinity" if self.start.is_supervisor else SHUTDOWN_S
            object.__setattr__(self, "shutdown", default)
        if self.restart not in get_args(RestartType):
            raise ValueError(f"restart is one of {get_args(RestartType)}, not {self.restart!r}")
        if isinstance(self.shutdown, str) and self.shutdown not in ("brutal_kill", "infinity"):
            raise ValueError("shutdown is a number of seconds, 'brutal_kill' or 'infinity'")
        if isinstance(self.shutdown, int | float) and self.shutdown < 0:
            raise ValueError("shutdown is no negative number of seconds")

    @classmethod
    def server(
        cls,
        id: Term,
        make: type[GenServer] | Callable[[], GenServer],
        *,
        name: str | None = None,
        server_class: type[GenServer] | None = None,
        restart: RestartType = "permanent",
        shutdown: Shutdown | None = None,
    ) -> ChildSpec:
        """A child that is a GenServer, a supervisor too. `make` is its class or makes a new one;
        `server_class` is the class then.
        """
        if isinstance(make, GenServer):
            raise TypeError(
                f"each life of a child is a new server: give the class {type(make).__name__}"
                " or a function that makes one, not an instance"
            )
        shown = server_class or (make if isinstance(make, type) else GenServer)
        return cls(id, ServerChild(make, name, shown), restart, shutdown)

    @classmethod
    def function(
        cls,
        id: Term,
        run: Callable[..., Awaitable[object]],
        *args: Any,
        name: str | None = None,
        restart: RestartType = "permanent",
        shutdown: Shutdown | None = None,
    ) -> ChildSpec:
        """A child that is `run(me, *args)`."""
        return cls(id, FunctionChild(run, args, name), restart, shutdown)

    @property
    def type(self) -> Atom:
        return Atom("supervisor" if self.start.is_supervisor else "worker")

    @property
    def modules(self) -> list[Atom]:
        return [Atom(self.start.module)]

    def is_restarted_after(self, reason: Term) -> bool:
        match self.restart:
            case "permanent":
                return True
            case "transient":
                return not is_orderly(reason)
            case _:
                return False

    def as_map(self) -> dict[Term, Term]:
        """The child specification as OTP writes it down."""
        shutdown = self.shutdown
        return {
            Atom("id"): self.id,
            Atom("start"): (Atom(self.start.module), Atom("start"), []),
            Atom("restart"): Atom(self.restart),
            Atom("shutdown"): (
                Atom(shutdown) if isinstance(shutdown, str) else round(1000 * (shutdown or 0))
            ),
            Atom("type"): self.type,
            Atom("modules"): self.modules,
        }


def is_orderly(reason: Term) -> bool:
    """Whether a process that ended with `reason` ended as it should."""
    match reason:
        case Atom("normal") | Atom("shutdown") | (Atom("shutdown"), _):
            return True
        case _:
            return False
