"""One worker's place in its role, and its life story: started, greeted, ended, started again.

`live` is the story, told in order by one task. Each life has a worker id and a link of its own: ids
are never used twice, and a link that saw a crash is never used again. What happens to the worker
arrives as the relay's events, what people want of it through `want`; both wake the story.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from random import Random
from socket import socket
from typing import Any, Protocol

import structlog
import trio

from bridge.etf import Pid, brief
from bridge.fabric.events import Operation
from bridge.fabric.relay import LinkConfig, WorkerBroke, WorkerOutput
from bridge.workers.crash_reports import CrashReports
from bridge.workers.handshake_driver import Driver, Links, RolePlan, Started
from bridge.workers.life import Life, WorkerEvent, describe_end
from bridge.workers.output import Line
from bridge.workers.restart_policy import GiveUp, LeaveEnded, StartAgain
from bridge.workers.shepherd import RemoteProtocolError
from bridge.workers.together import role_policy
from bridge.workers.wishes import Siblings, Wanted

# A killed worker's end is told by the relay within milliseconds; past this the relay has lost it.
END_TOLD_WITHIN_S = 5.0
# One that the relay has killed needs nobody to end it, unless its init is stopped.
KILLED_ENDS_WITHIN_S = 1.0
# Its shepherd tells what it has used with the end of the tree, unless it is stopped itself.
USAGE_TOLD_WITHIN_S = 1.0


class State(Enum):
    STARTING = "starting"  # its process runs, it has not greeted
    READY = "ready"
    DRAINING = "draining"  # finishes what it has, gets nothing new
    RESTARTING = "restarting"  # ended; the backoff runs, or it waits for its siblings
    DRAINED = "drained"  # ended because it was asked to
    GIVEN_UP = "given_up"  # ended too often
    FINISHED = "finished"  # ended, and its restart type says: for good
    STOPPED = "stopped"  # ended for good: the bridge stops, or its place in the role is gone


class Registration(Protocol):
    """The worker's pid on the node, for one life."""

    @property
    def pid(self) -> Pid: ...
    def end(self, reason: object) -> None: ...


class Conversation(Protocol):
    """The worker's channel, for one life (bridge/workers/channel)."""

    async def leave(self) -> None: ...
    async def finish(self) -> None: ...
    def statistics(self) -> Mapping[str, int]: ...


class Remote(Protocol):
    """Where the work of a worker is done that is a process of another node."""

    def describe(self) -> dict[Any, Any]: ...


class Worker:
    """Worker `index` of a role, through all its lives. `id` is that of the present or last one."""

    def __init__(
        self,
        plan: RolePlan,
        index: int,
        *,
        driver: Driver,
        relay: Links,
        next_id: Callable[[Worker], int],
        changed: Callable[[Worker], None],
        drain_s: float,
        random: Random,
        siblings: Siblings,
        crashes: CrashReports,
        register: Callable[[Worker], Registration | None] = lambda worker: None,
        converse: Callable[[Worker, socket], Conversation | None] = lambda worker, channel: None,
    ) -> None:
        self.plan = plan
        self.index = index
        self.id = next_id(self)
        self.state = State.STARTING
        self.os_pid: int | None = None
        self.kit: str | None = None
        self.kit_version: str | None = None
        self.layout_version: str | None = None
        self.link: LinkConfig | None = None
        self.operations: tuple[Operation, ...] = ()
        self.encodings: tuple[str, ...] = ()
        self.restarts = 0
        self.failures = 0  # lives that ended unasked
        self.last_error: str | None = None
        self.first_error: str | None = None
        self.registration: Registration | None = None
        self.conversation: Conversation | None = None
        self._register = register
        self._converse = converse
        self._driver = driver
        self._relay = relay
        self._next_id = next_id
        self._changed = changed
        self._drain_s = drain_s
        self._random = random
        self._has_lived = False
        self.attached = False  # started by hand: no shepherd guards it (attach.py)
        self.remote: Remote | None = None  # a process of another node (remote/)
        self._weight = 1  # as the relay knows it
        self._draining = trio.CancelScope()
        self._siblings = siblings
        self._crashes = crashes
        self._policy = role_policy(plan)
        self._wanted = Wanted.RUN
        self._wishes = 0  # how many there have been
        self._life = Life()
        self._news = trio.Event()
        self._log = structlog.get_logger("ringbridge.worker").bind(role=plan.name)

    # ---- what is told and asked

    def change(self, plan: RolePlan) -> None:
        """Live by other settings of the role, but start the same program in the same way."""
        self.plan = plan.started_as(self.plan)
        if self.os_pid is not None and not self._life.over:
            self._weigh()
        self._policy.adjust(role_policy(plan))

    def _weigh(self) -> None:
        """Tell the relay its weight beside the others of its role, where that has changed."""
        weight = self.plan.config.choice.weight_of(self.index)
        if weight != self._weight:
            self._weight = weight
            self._relay.weigh_worker(self.id, weight)

    def set_drain(self, drain_s: float) -> None:
        """How long it may take to finish what it has; for a drain under way, from now on."""
        self._drain_s = drain_s
        self._draining.deadline = trio.current_time() + drain_s

    def want(self, wanted: Wanted) -> None:
        """Ask for a drain, a restart or the stop. A worker told to stop hears nothing else, and one
        that waits for its siblings starts again with them.
        """
        if self._wanted is Wanted.STOP or (self._wanted, wanted) == (Wanted.HOLD, Wanted.RESTART):
            return
        self._want(wanted)
        if wanted is Wanted.RESTART:
            self._siblings.come_back(self)
        else:
            self._siblings.leave(self)

    def told(self, wanted: Wanted) -> None:
        """What the siblings' supervisor wants of it."""
        if self._wanted is Wanted.STOP:
            return
        self._want(wanted)
        if self.state is State.DRAINING:
            self._draining.deadline = min(
                self._draining.deadline, trio.current_time() + self._drain_within_s()
            )

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._wishes += 1
        self._tell()
        self._changed(self)  # a role whose worker comes back lets jobs wait for it, at once

    @property
    def leaves(self) -> bool:
        """It ends for good: stopped, or told to."""
        return self._wanted is Wanted.STOP

    @property
    def comes_back(self) -> bool:
        """It drains, or has drained, only to start again."""
        return self._wanted in (Wanted.RESTART, Wanted.HOLD)

    @property
    def is_own(self) -> bool:
        """It is of those that the bridge starts, counts and replaces by itself."""
        return not self.attached and self.remote is None

    @property
    def fate(self) -> str:
        """How its present life ends: "broke", "killed", "asked" or "ended"."""
        if self._life.broke:
            return "broke"
        if self._life.killed:
            return "killed"
        return "ended" if self._wanted is Wanted.RUN else "asked"

    def handle(self, event: WorkerEvent) -> None:
        """Take one event of the present life. Never blocks."""
        match event:
            case WorkerOutput():
                lines = self._life.take_output(event, trio.current_time())
                self._log_output(event.stream, lines)
                return
            case WorkerBroke():
                self._fail(f"it broke a rule and was fenced: {event.rule}")
                self._life.take(event)
            case _:
                self._life.take(event)
        self._tell()

    def keep_line(self, text: str) -> None:
        """It said this over its channel: for the report, should it crash."""
        self._life.keep(text.encode() + b"\n")

    def kill(self, reason: object) -> None:
        """Somebody has sent an exit signal to the worker's pid: end this life at once."""
        self._life.killed = True
        self._fail(f"it was killed by an exit signal: {brief(reason)}")
        self._tell()

    def broke_channel(self, rule: str) -> None:
        """It broke a rule of its channel: end this life at once."""
        self._life.killed = True
        self._fail(f"it broke a rule of its channel: {rule}")
        self._tell()

    def broke_messages(self, rule: str) -> None:
        """The remote worker broke a rule of its messages; its end follows."""
        self._fail(f"it broke a rule: {rule}")

    # ---- the story

    async def live(self) -> None:
        """Live until the stop is wanted; when this returns or is cancelled, no process is left."""
        try:
            while self._wanted is not Wanted.STOP:
                if self._wanted is not Wanted.RUN:
                    await self._stay_ended()
                    continue
                if self._has_lived:
                    self.restarts += 1
                    self.id = self._next_id(self)
                self._has_lived = True
                normal = await self._live_once()
                if self._wanted is Wanted.RUN:
                    await self._rest(normal)
        finally:
            self._enter(State.STOPPED)

    async def _stay_ended(self) -> None:
        """It has ended because that was wanted, or has not begun: until something else is."""
        wishes = self._wishes
        match self._wanted:
            case Wanted.RESTART:
                self._policy.forget()
                self._wanted = Wanted.RUN
                return
            case Wanted.DRAIN:
                self._enter(State.DRAINED)
            case Wanted.QUIT:
                self._enter(State.GIVEN_UP)
            case Wanted.HOLD:
                if self._has_lived:
                    self._enter(State.RESTARTING)
                self._siblings.gone(self)
        # Wishes may come faster than they are lived: one that is the same again is another one.
        await self._until(lambda: self._wishes != wishes)

    async def _live_once(self) -> bool:
        """One life, from start to end. Returns whether its end was normal (exit status 0)."""
        self._life = life = Life(began_s=trio.current_time())
        self._log = self._log.bind(worker=self.id)
        self._enter(State.STARTING)
        self.link = self._driver.link
        try:
            started = await self._driver.start(self.id, self.plan)
        except (OSError, ValueError, RemoteProtocolError) as error:
            self._fail(f"it could not be started: {error}")
            return False
        self.os_pid = started.guard.pid
        self._weight = 1
        self._weigh()
        self.registration = self._register(self)
        if started.channel is not None:
            self.conversation = self._converse(self, started.channel)
        self._changed(self)  # it has a process now, and a pid
        try:
            await self._greet()
            if life.greeting and not life.over and self._wanted is Wanted.RUN:
                self._enter(State.READY)
                self._siblings.up(self)
                await self._until(lambda: life.over or self._wanted is not Wanted.RUN)
            if life.greeting and not life.over:
                await self._drain()
        finally:
            with trio.CancelScope(shield=True):
                await self._bury(started)
            normal = self._tell_end()
            if report := life.report(self, trio.current_time()):
                self._crashes.add(report)
            self.os_pid = None
            self._unregister()
        return normal

    async def _greet(self) -> None:
        """Wait for the worker's hello, for as long as its role allows."""
        life, config = self._life, self.plan.config
        with trio.move_on_after(config.start_ms / 1000) as starting:
            await self._until(lambda: life.greeting or life.over or self._wanted is not Wanted.RUN)
        if starting.cancelled_caught:
            self._fail(f"it did not greet within {config.start_ms} ms (start_ms)")
        elif life.refused is not None:
            self._fail(f"it was refused: {life.refused}")
        elif life.greeting:
            self.kit = life.greeting.kit
            self.kit_version = life.kit_version
            self.layout_version = "{}.{}".format(*life.greeting.layout_version)
            self.operations = life.greeting.operations
            self.encodings = life.greeting.encodings
            self._log.info("worker ready", os_pid=self.os_pid, kit=self.kit)

    async def _drain(self) -> None:
        """Let the worker finish what it has; past the drain time it is ended all the same."""
        self._enter(State.DRAINING)
        if self.conversation:
            await self.conversation.leave()
        self._relay.drain_worker(self.id)
        drain_s = self._drain_within_s()
        self._draining = trio.CancelScope(deadline=trio.current_time() + drain_s)
        with self._draining:
            await self._until(lambda: self._life.over)
        if self._draining.cancelled_caught:
            drain_s = self._drain_within_s()
            self._log.warning("worker did not drain in time and is ended", drain_s=drain_s)

    def _drain_within_s(self) -> float:
        """The time that its end may take, by who wants it."""
        if self._wanted in (Wanted.HOLD, Wanted.QUIT):
            return min(self._drain_s, self.plan.config.shutdown_ms / 1000)
        return self._drain_s

    async def _bury(self, started: Started) -> None:
        """End what still runs, wait for the relay to tell the end, let go of the shepherd."""
        life = self._life
        if life.broke and started.guard.pid is not None:
            with trio.move_on_after(KILLED_ENDS_WITHIN_S):
                await self._until(lambda: life.end is not None)
        if life.end is None:
            try:
                # None: the grace of its role.
                await started.guard.stop(0.0 if life.killed or life.broke else None)
            except RemoteProtocolError as error:
                self._fail(f"its shepherd broke a rule: {error}")
            with trio.move_on_after(END_TOLD_WITHIN_S):
                await self._until(lambda: life.end is not None)
        with trio.move_on_after(USAGE_TOLD_WITHIN_S), suppress(RemoteProtocolError):
            life.usage = await started.guard.used()
        await started.guard.aclose()
        if self.conversation:
            await self.conversation.finish()
            self.conversation = None
        if started.channel is not None:
            started.channel.close()
        now_s = trio.current_time()
        for stream, lines in self._life.last_lines(now_s):
            self._log_output(stream, lines)

    def _unregister(self) -> None:
        if self.registration:
            asked = self._wanted is not Wanted.RUN
            self.registration.end(self._life.down_reason(self.id, asked=asked))
            self.registration = None

    def _tell_end(self) -> bool:
        """Log how the life ended. Returns whether that was normal."""
        life = self._life
        if self._wanted is not Wanted.RUN:
            self._log.info("worker ended as asked", asked=self._wanted.value)
            return True
        if life.end is None:
            self._fail("its end was never told by the relay")
            return False
        if life.failure is None and life.greeting and life.end.status == 0:
            self._log.info("worker ended", how=describe_end(life.end))
            return True
        greeted = "" if life.greeting else " before it greeted"
        self._fail(f"it ended{greeted}: {describe_end(life.end)}")
        return False

    async def _rest(self, normal: bool) -> None:
        """After an end nobody asked for: the backoff, or until somebody asks for the worker."""
        self.failures += not normal or self.plan.config.restart == "permanent"
        if (decision := self._siblings.fell(self, normal=normal)) is not None:
            if isinstance(decision, StartAgain):
                self._enter(State.RESTARTING)
                await self._until(lambda: self._wanted is not Wanted.RUN)
                return
        else:
            decision = self._policy.decide(
                now_s=trio.current_time(), normal=normal, random=self._random.random()
            )
            why = decision.why if isinstance(decision, GiveUp) else None
            self._siblings.fell_alone(self, given_up=why)
        match decision:
            case StartAgain(delay_s):
                self._enter(State.RESTARTING)
                self._log.info("worker starts again", delay_ms=round(delay_s * 1000))
                with trio.move_on_after(delay_s):
                    await self._until(lambda: self._wanted is not Wanted.RUN)
            case GiveUp(why):
                self._enter(State.GIVEN_UP)
                self._log.error("worker given up", why=why, last_error=self.last_error)
                await self._until(lambda: self._wanted is not Wanted.RUN)
            case LeaveEnded():
                self._enter(State.FINISHED)
                self._log.info("worker finished", restart=self.plan.config.restart)
                await self._until(lambda: self._wanted is not Wanted.RUN)

    # ---- small change

    def _fail(self, why: str) -> None:
        if self._life.failure is None:
            self._life.failure = self.last_error = why
            self.first_error = self.first_error or why
            self._log.warning("worker failed", why=why)

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed(self)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._news.wait()

    def _log_output(self, stream: str, lines: list[Line]) -> None:
        for text, job in lines:
            about = {} if job is None else {"job": job}
            self._log.info("worker output", stream=stream, line=text, **about)
