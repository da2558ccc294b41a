"""Together: carries out over the workers of all roles what strategy.py says.

Each role has its siblings, the workers; each group has its own, the roles. What a worker's story
meets comes here; what is to be done about others goes to them as a wish (`Worker.told`).

    worker falls -> siblings of its role -> others are told HOLD, and RESTART when it is their turn
    role is spent -> siblings of its group -> other roles are halted, and begun again
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

import structlog
import trio

from bridge.config import GroupSettings
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.restart_policy import Decision, RestartPolicy
from bridge.workers.strategy import Effect, End, Halted, Quit, Risen, Siblings, Spent, Start
from bridge.workers.wishes import Fellow, Wanted


class Together:
    """The siblings of every role and group. `role_changed`: whether a role comes back may be
    another matter now.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupSettings],
        random: Random,
        role_changed: Callable[[int], None] = lambda role: None,
    ) -> None:
        self._role_changed = role_changed
        self._suspended: set[int] = set()  # roles whose workers fall alone for now
        self._random = random
        self._settings: Mapping[str, GroupSettings] = groups
        self._names: dict[int, str] = {}  # of roles
        self._roles: dict[int, Siblings[Fellow]] = {}
        self._groups: dict[str, Siblings[int]] = {
            name: _group(settings) for name, settings in groups.items()
        }
        self._news = trio.Event()
        self._log = structlog.get_logger("ringbridge.workers")

    async def run(self) -> None:
        """Start those who wait for their turn, and see to backoffs; for ever."""
        while True:
            now_s = trio.current_time()
            for name, group in self._groups.items():
                self._do_group(name, group.passed(now_s))
            for role, siblings in self._roles.items():
                self._do_role(role, siblings.passed(now_s))
            dues = [group.due_s for group in self._groups.values()]
            dues += [siblings.due_s for siblings in self._roles.values()]
            due_s = min((due for due in dues if due is not None), default=math.inf)
            with trio.move_on_at(due_s):
                await self._news.wait()

    # ---- who there is

    def add_role(self, plan: RolePlan) -> None:
        """A role whose workers will join; in a group it begins when its turn comes."""
        group = self._group_of(plan.name)
        self._names[plan.id] = plan.name
        self._roles[plan.id] = Siblings(
            plan.config.strategy, role_policy(plan), halted=group is not None
        )
        if group is not None:
            name, siblings = group
            siblings.join(plan.id, self._place(name, siblings, plan.name))
            self._tell()

    def change_role(self, plan: RolePlan) -> None:
        """Other settings: they hold for what happens from now on."""
        siblings = self._roles[plan.id]
        siblings.strategy = plan.config.strategy
        siblings.policy.adjust(role_policy(plan))

    def remove_role(self, role: int) -> None:
        """Its workers go, each alone."""
        if self._roles.pop(role, None) is None:
            return
        if (group := self._group_of(self._names.pop(role))) is not None:
            name, siblings = group
            self._do_group(name, siblings.leave(role, trio.current_time()))

    def set_groups(self, groups: Mapping[str, GroupSettings]) -> None:
        """Other groups, from now on. Roles that waited for the turn of an old one begin."""
        for name, settings in groups.items():
            before = self._settings.get(name)
            if before is not None and before.roles == settings.roles:
                self._groups[name].strategy = settings.strategy
                self._groups[name].policy.adjust(group_policy(settings))
            else:
                self._groups[name] = _group(settings)
        kept = {n for n, s in groups.items() if (b := self._settings.get(n)) and b.roles == s.roles}
        self._groups = {name: self._groups[name] for name in groups}
        self._settings = groups
        for role, siblings in self._roles.items():
            group = self._group_of(self._names[role])
            if group is None or group[0] not in kept:
                if group is not None:
                    name, others = group
                    place = self._place(name, others, self._names[role])
                    others.join(role, place, runs=True)
                if siblings.is_halted:
                    self._do_role(role, siblings.begin(trio.current_time()))
        self._tell()

    def suspend(self, role: int) -> None:
        """Let its workers fall alone: somebody replaces them."""
        self._suspended.add(role)

    def resume(self, role: int) -> None:
        """As before; what has become of the role meanwhile is told to its group."""
        self._suspended.discard(role)
        if (siblings := self._roles.get(role)) is not None and siblings.is_spent:
            self._do_role(role, [Spent("its workers were given up in an upgrade")])

    def join(self, worker: Fellow, at: int) -> bool:
        """A new worker of its role. Returns whether it starts at once; else it is told when."""
        role = worker.plan.id
        siblings = self._roles[role]
        alone = siblings.strategy == "one_for_one" or role in self._suspended
        at_once = alone and not siblings.is_halted
        siblings.join(worker, min(at, len(siblings.line)), runs=at_once)
        self._tell()
        return at_once

    def leave(self, worker: Fellow) -> None:
        """Somebody has asked it to end: it is nobody's sibling until it is asked back."""
        if (siblings := self._roles.get(worker.plan.id)) is not None and worker in siblings.line:
            self._do_role(worker.plan.id, siblings.leave(worker, trio.current_time()))

    def come_back(self, worker: Fellow) -> None:
        """Somebody has asked for it."""
        siblings = self._roles.get(worker.plan.id)
        if siblings is not None and worker not in siblings.line:
            place = sum(other.index < worker.index for other in siblings.line)
            siblings.join(worker, place, runs=True)

    def group_name(self, role: int) -> str | None:
        """The group that the role is in."""
        group = self._group_of(self._names[role]) if role in self._names else None
        return group and group[0]

    def waits(self, role: int) -> bool:
        """Was it given up, and its group will begin it again?"""
        group = self._group_of(self._names[role]) if role in self._names else None
        return group is not None and group[1].is_to_start(role)

    # ---- what happens to a worker

    def fell(self, worker: Fellow, *, normal: bool) -> Decision | None:
        """It ended unasked. None: it falls alone, and its own history decides; else what becomes of
        it. With StartAgain it is told when.
        """
        role = worker.plan.id
        siblings = self._roles.get(role)
        if siblings is None or worker not in siblings.line:
            return None
        if siblings.strategy == "one_for_one" or role in self._suspended:
            return None
        decision, effects = siblings.fell(
            worker, normal=normal, now_s=trio.current_time(), random=self._random.random()
        )
        others = [effect.child.id for effect in effects if isinstance(effect, End)]
        if others:
            self._log.warning(
                "worker takes its siblings along",
                role=worker.plan.name,
                worker=worker.id,
                strategy=siblings.strategy,
                siblings=others,
            )
        self._do_role(role, effects)
        return decision

    def fell_alone(self, worker: Fellow, *, given_up: str | None) -> None:
        """With one_for_one: it has ended, and perhaps for good."""
        role = worker.plan.id
        if (siblings := self._roles.get(role)) is not None:
            effects = siblings.failed_alone(worker, trio.current_time(), given_up=given_up)
            if role in self._suspended:
                effects = [effect for effect in effects if not isinstance(effect, Spent)]
            self._do_role(role, effects)

    def up(self, worker: Fellow) -> None:
        """It has greeted."""
        if (siblings := self._roles.get(worker.plan.id)) is not None:
            self._do_role(worker.plan.id, siblings.up(worker, trio.current_time()))

    def gone(self, worker: Fellow) -> None:
        """It was told HOLD, and has ended."""
        if (siblings := self._roles.get(worker.plan.id)) is not None:
            self._do_role(worker.plan.id, siblings.gone(worker, trio.current_time()))

    # ---- what is done

    def _do_role(self, role: int, effects: list[Effect[Fellow]]) -> None:
        group = self._group_of(self._names[role])
        for effect in effects:
            match effect:
                case End(worker):
                    worker.told(Wanted.HOLD)
                case Start(worker):
                    worker.told(Wanted.RESTART)
                case Quit(worker):
                    worker.told(Wanted.QUIT)
                case Spent(why):
                    self._role_spent(role, why)
                case Halted() if group is not None:
                    self._do_group(group[0], group[1].gone(role, trio.current_time()))
                case Risen() if group is not None:
                    self._do_group(group[0], group[1].up(role, trio.current_time()))
        self._tell()  # also without effects: there may be another time to wait for

    def _role_spent(self, role: int, why: str) -> None:
        name, group = self._names[role], self._group_of(self._names[role])
        self._log.error("role given up", role=name, why=why, group=group and group[0])
        if group is not None:
            group_name, siblings = group
            _, effects = siblings.fell(
                role, normal=False, now_s=trio.current_time(), random=self._random.random()
            )
            self._do_group(group_name, effects)

    def _do_group(self, name: str, effects: list[Effect[int]]) -> None:
        now_s = trio.current_time()
        for effect in effects:
            match effect:
                case End(role):
                    self._log.warning("role is ended with its group", role=self._names[role])
                    self._do_role(role, self._roles[role].halt(now_s))
                case Start(role):
                    self._log.info("role begins", role=self._names[role], group=name)
                    self._do_role(role, self._roles[role].begin(now_s))
                case Quit(role):
                    self._do_role(role, self._roles[role].quit())
                case Spent(why):
                    self._log.error("group given up", group=name, why=why)
        if name in self._groups:
            for role in self._groups[name].line:
                self._role_changed(role)
        self._tell()

    def _group_of(self, role_name: str) -> tuple[str, Siblings[int]] | None:
        for name, settings in self._settings.items():
            if role_name in settings.roles:
                return name, self._groups[name]
        return None

    def _place(self, group: str, siblings: Siblings[int], role_name: str) -> int:
        order = self._settings[group].roles
        mine = order.index(role_name)
        return sum(order.index(self._names[role]) < mine for role in siblings.line)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


def role_policy(plan: RolePlan) -> RestartPolicy:
    """The role's settings in the words of RestartPolicy: of one worker, or of all as siblings."""
    config = plan.config
    return RestartPolicy(
        restart=config.restart,
        max_restarts=config.max_restarts,
        window_s=config.window_s,
        backoff_min_s=config.backoff_min_ms / 1000,
        backoff_max_s=config.backoff_max_ms / 1000,
    )


def group_policy(settings: GroupSettings) -> RestartPolicy:
    return RestartPolicy(
        restart="permanent",
        max_restarts=settings.max_restarts,
        window_s=settings.window_s,
        backoff_min_s=settings.backoff_min_ms / 1000,
        backoff_max_s=settings.backoff_max_ms / 1000,
    )


def _group(settings: GroupSettings) -> Siblings[int]:
    return Siblings(settings.strategy, group_policy(settings), in_turn=True)
