"""Which jobs are taken in, at once or later (docs/dispatch.md, "Admission").

A job that breaks a rule is refused, or another is dropped for it, or it is deferred: kept in the
backlog of whoever's rule it was (its role, its node, its tenant) until that lets it in. Who comes
later overtakes nobody who waits for the same.
"""

from collections import Counter, deque
from dataclasses import dataclass, field, replace

from dispatcher_model import MS, Asked, Caller, Dispatcher, Job, Refusal, Role, Seen, Where

from bridge.fabric.limits import AllowanceLimits, RateLimits

SLICES = 16  # of a sliding window


class Limiter:
    """How many jobs may begin in a time."""

    def __init__(self, rate: RateLimits) -> None:
        self.rate = rate
        self.per_ns = rate.per_ms * MS
        self.tokens = rate.burst if rate.kind == "token_bucket" else 1
        self.begun = -1
        self.level = 0  # of a bucket: tokens, times per_ns
        self.at = 0
        self.slices: Counter[int] = Counter()
        self.taken: deque[int] = deque()

    def _look(self, now: int) -> None:
        if self.begun < 0:
            self.begun = self.at = now
            self.level = self.tokens * self.per_ns
        full = self.tokens * self.per_ns
        self.level = min(self.level + (now - self.at) * self.rate.jobs, full)
        self.at = now

    def is_shut(self, now: int) -> bool:
        if self.rate.kind == "none":
            return False
        self._look(now)
        if self.rate.kind != "sliding_window":
            return self.level < self.per_ns
        newest = self._slice(now)
        return sum(self.slices[i] for i in range(newest - SLICES, newest + 1)) >= self.rate.jobs

    def _slice(self, now: int) -> int:
        return (now - self.begun) // (self.per_ns // SLICES)

    def take(self, now: int) -> None:
        if self.rate.kind == "none":
            return
        self._look(now)
        self.level -= min(self.level, self.per_ns)
        self.slices[self._slice(now)] += 1
        self.taken.append(now)
        self._holds(now)

    def _holds(self, now: int) -> None:
        """What a reader expects of each kind, however it is kept."""
        while self.taken[0] <= now - self.per_ns:
            self.taken.popleft()
        if self.rate.kind == "token_bucket":
            assert len(self.taken) <= self.rate.burst + self.rate.jobs
        elif self.rate.kind == "leaky_bucket":
            assert len(self.taken) <= 1 + self.rate.jobs
        else:
            assert len(self.taken) <= self.rate.jobs


@dataclass(eq=False)
class Party:
    """A role, a calling node or a tenant: its rules, and who waits for them."""

    kind: str
    allowance: AllowanceLimits
    backlog: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.allowance.rate)


@dataclass(frozen=True)
class Broken:
    """A rule that a job breaks: what becomes of it."""

    rule: str
    of: Party
    paced: bool  # it may wait for a leaky bucket, whatever the policy
    outcome: str = "refuse"  # later, drop


class Admission(Dispatcher):
    def __init__(self) -> None:
        super().__init__()
        self.allowances: dict[tuple[str, str], AllowanceLimits] = {}  # "": of all others
        self.parties: dict[tuple[str, str], Party] = {}
        self.backlogs: list[Party] = []  # with somebody in them
        self.behind: dict[Job, tuple[Party, bool, int]] = {}  # whom, paced?, until when
        self.overloaded_by: Counter[str] = Counter()

    def _party(self, kind: str, name: str) -> Party:
        if (kind, name) not in self.parties:
            usual = self.allowances.get((kind, ""), AllowanceLimits())
            given = self.allowances.get((kind, name), usual)
            if kind == "role":
                given = AllowanceLimits(rate=self.roles[name].limits.admission.rate)
            self.parties[kind, name] = Party(kind, given)
        return self.parties[kind, name]

    def _parties(self, caller: Caller, asked: Asked) -> list[Party]:
        found = [self._party("role", asked.role)]
        if self._counts("node", asked.role):
            found.append(self._party("node", caller.node))
        if asked.tenant and self._counts("tenant", asked.role):
            found.append(self._party("tenant", asked.tenant))
        return found

    def _counts(self, kind: str, role: str) -> bool:
        """Nodes, or tenants, are nothing to a role without a rule for them where no rule of the
        whole is for them either.
        """
        limits = self.roles[role].limits.admission
        own = limits.node_depth_max if kind == "node" else limits.tenant_depth_max
        return own > 0 or any(
            allowance.depth_max or allowance.rate.kind != "none"
            for (of, _), allowance in self.allowances.items()
            if of == kind
        )

    # ---- rules

    def _broken(self, role: Role, caller: Caller, asked: Asked) -> Broken | None:
        """The first that it breaks: depths, then rates."""
        if len(role.queue) >= role.limits.admission.depth_max:
            return Broken("role_depth", self._party("role", asked.role), paced=False)
        return self._broken_besides(role, caller, asked)

    def _broken_besides(self, role: Role, caller: Caller, asked: Asked) -> Broken | None:
        """For which a job that is dropped makes no room."""
        limits = role.limits.admission
        parties = self._parties(caller, asked)
        waiting = [job for each in self.roles.values() for job in each.queue]
        for party in parties[1:]:
            theirs = [job for job in waiting if party in self._parties(job.caller, job.asked)]
            of_role = sum(job.role is role for job in theirs)
            most = limits.node_depth_max if party.kind == "node" else limits.tenant_depth_max
            if (most and of_role >= most) or 0 < party.allowance.depth_max <= len(theirs):
                return Broken(f"{party.kind}_depth", party, paced=False)
        for party in parties:
            if party.limiter.is_shut(self.now):
                return Broken(f"{party.kind}_rate", party, self._paces(party))
        return None

    @staticmethod
    def _paces(party: Party) -> bool:
        rate = party.allowance.rate
        return rate.kind == "leaky_bucket" and len(party.backlog) < rate.burst

    def _behind(self, caller: Caller, asked: Asked) -> Broken | None:
        for party in self._parties(caller, asked):
            if party.backlog:
                depth = party.kind == "role" and party.allowance.rate.kind == "none"
                rule = "role_depth" if depth else f"{party.kind}_rate"
                return Broken(rule, party, self._paces(party))
        return None

    def _decide(
        self,
        role: Role,
        caller: Caller,
        asked: Asked,
        broken: Broken,
        *,
        overtakes: bool = False,
        itself: Job | None = None,  # it does not stand in its own way
    ) -> Broken:
        limits = role.limits.admission
        drops = limits.on_full == "drop_oldest" and broken.rule == "role_depth"
        if drops and not overtakes and self._to_drop(role, asked):
            besides = self._broken_besides(role, caller, asked)
            if not besides:
                return replace(broken, outcome="drop")
            broken = besides
        deferred = sum(
            job.role is role and not paced and job is not itself
            for job, (_, paced, _) in self.behind.items()
        )
        later = limits.on_full == "defer" and deferred < limits.defer_max
        return replace(broken, outcome="later" if broken.paced or later else "refuse")

    @staticmethod
    def _to_drop(role: Role, asked: Asked) -> Job | None:
        """The oldest of the lowest band, but for nobody of a lower one."""
        oldest = max(role.queue, key=lambda j: (j.asked.band, -j.number), default=None)
        return oldest if oldest and oldest.asked.band >= asked.band else None

    # ---- in

    def _refusal(self, role: Role, caller: Caller, asked: Asked) -> Refusal:
        self.verdict: Broken | None = None
        if waits := self._behind(caller, asked):
            self.verdict = self._decide(role, caller, asked, waits, overtakes=True)
        elif broken := self._broken(role, caller, asked):
            self.verdict = self._decide(role, caller, asked, broken)
        if self.verdict and self.verdict.outcome == "refuse":
            self.overloaded_by[self.verdict.rule] += 1
            return ("overloaded",)
        return ()

    def _begin(self, job: Job) -> None:
        if self.verdict and self.verdict.outcome == "later":
            self._wait_behind(job, self.verdict)
        else:
            self._enter(job, self.verdict)

    def _enter(self, job: Job, verdict: Broken | None) -> None:
        if verdict and verdict.outcome == "drop" and (oldest := self._to_drop(job.role, job.asked)):
            self._overloaded(oldest, "dropped")
        for party in self._parties(job.caller, job.asked):
            party.limiter.take(self.now)
        self._enqueue(job)

    def _overloaded(self, job: Job, rule: str) -> None:
        self.overloaded_by[rule] += 1
        self._answer(job, "overloaded")

    # ---- those that wait outside

    def _wait_behind(self, job: Job, verdict: Broken, until: int = 0) -> None:
        """A policy keeps it for defer_ms; a leaky bucket until its deadline."""
        if verdict.paced:
            until = job.deadline
        elif not until:
            until = min(self.now + job.role.limits.admission.defer_ms * MS, job.deadline)
        job.where = Where.DEFERRED
        verdict.of.backlog.append(job)
        self.behind[job] = verdict.of, verdict.paced, until
        if verdict.of not in self.backlogs:
            self.backlogs.append(verdict.of)

    def _leave(self, job: Job) -> None:
        if job in self.behind:
            self._quit_backlog(job)
        super()._leave(job)

    def _quit_backlog(self, job: Job) -> None:
        party, _, _ = self.behind.pop(job)
        party.backlog.remove(job)
        if not party.backlog and party in self.backlogs:
            self.backlogs.remove(party)

    def end_overdue(self) -> None:
        for job, (_, _, until) in list(self.behind.items()):
            if job in self.behind and until <= self.now < job.deadline:
                self._overloaded(job, "deferred")
        super().end_overdue()

    def place(self, seen: Seen) -> None:
        super().place(seen)
        while self.backlogs and self._let_in():
            super().place(seen)

    def _let_in(self) -> int:
        """The first of each backlog, as long as it may go. How many went to their queues."""
        entered = 0
        for party in list(self.backlogs):
            if party not in self.backlogs:
                continue
            self.backlogs.remove(party)
            for job in list(party.backlog):
                if party.backlog[:1] != [job]:
                    continue
                verdict = self._broken(job.role, job.caller, job.asked)
                if verdict and verdict.of is not party:
                    verdict = self._decide(job.role, job.caller, job.asked, verdict, itself=job)
                if verdict and verdict.of is party:
                    break
                entered += self._forward(job, verdict)
            if party.backlog:
                self.backlogs.append(party)
        return entered

    def _forward(self, job: Job, verdict: Broken | None) -> bool:
        """It does not wait for this rule any more. True: nor for another."""
        _, paced, until = self.behind[job]
        if verdict and verdict.outcome == "refuse":
            self._overloaded(job, verdict.rule)
            return False
        self._quit_backlog(job)
        if verdict and verdict.outcome == "later":
            self._wait_behind(job, verdict, 0 if paced else until)
            return False
        self._enter(job, verdict)
        return True
