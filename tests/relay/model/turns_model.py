"""Whose turn it is: tenants within a band, by weight (docs/dispatch.md; decision 0018).

Start tags: the tenant with the smallest tag in the highest band is next, with its most urgent job.
A turn moves its tag on by 1/weight; a tenant that begins to wait stands at the band's clock, if its
tag is not past that: it has saved up nothing. The clock follows the tags of those whose turn it
was, and moves on with each turn by 1/(sum of the weights that wait). Who has nobody beside it owes
nothing. Of equal tags the one that began to wait first is next.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from dispatcher_model import Dispatcher, Job, Role, Worker

UNIT = 720_720  # the tag of a job at weight 1: parts of it are cut off (share.h)
WEIGHT_DEFAULT = 10


@dataclass
class Share:
    """What a tenant has waiting in one band, and how much it has had."""

    tag: int = 0
    since: int = 0  # the how manieth that began to wait
    weight: int = 0  # as it was when it began to wait, or had its last turn
    jobs: list[Job] = field(default_factory=list)
    passed: int = 0  # turns of others since its last one
    weights_most: int = 0  # meanwhile: the largest sum, and the least single one
    weight_least: int = 1000


@dataclass
class Band:
    clock: int = 0
    shares: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))

    def waiting(self) -> dict[str, Share]:
        return {name: share for name, share in self.shares.items() if share.jobs}

    def weights(self) -> int:
        return sum(share.weight for share in self.waiting().values())


class Turns(Dispatcher):
    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, int] = {}  # of those that were given one
        self.bands: dict[str, list[Band]] = defaultdict(lambda: [Band() for _ in range(4)])
        self.waits = 0

    def weigh(self, tenant: str, weight: int | None) -> None:
        if weight is None:
            self.weights.pop(tenant, None)
        else:
            self.weights[tenant] = weight

    def _weight(self, tenant: str) -> int:
        return self.weights.get(tenant, WEIGHT_DEFAULT)

    # ---- coming and going

    def _enqueue(self, job: Job) -> None:
        super()._enqueue(job)
        band = self._band(job)
        share = band.shares[job.asked.tenant]
        if not share.jobs:
            share.tag = max(share.tag, band.clock)
            share.weight = self._weight(job.asked.tenant)
            self.waits += 1
            share.since = self.waits
            share.passed, share.weights_most, share.weight_least = 0, 0, 1000
        share.jobs.append(job)

    def _band(self, job: Job) -> Band:
        assert job.role.limits.order.aging_ms == 0  # nobody moves between bands here
        return self.bands[job.role.limits.name][job.asked.band]

    def _dequeue(self, job: Job) -> None:
        super()._dequeue(job)
        self._band(job).shares[job.asked.tenant].jobs.remove(job)

    # ---- turns

    def _next_jobs(self, role: Role) -> list[Job]:
        waiting = next(w for band in self.bands[role.limits.name] if (w := band.waiting()))
        share = min(waiting.values(), key=lambda share: (share.tag, share.since))
        return [min(share.jobs, key=role.urgency)]

    def _give(self, job: Job, worker: Worker) -> None:
        self._charge(self._band(job), job.asked.tenant)
        super()._give(job, worker)

    def _charge(self, band: Band, tenant: str) -> None:
        share, waiting = band.shares[tenant], band.waiting()
        band.clock = max(band.clock, share.tag)
        if len(waiting) == 1:
            return
        share.weight = self._weight(tenant)
        band.clock += max(UNIT // band.weights(), 1)
        share.tag += UNIT // share.weight
        self._nobody_waits_too_long(band, share)

    @staticmethod
    def _nobody_waits_too_long(band: Band, served: Share) -> None:
        """After 2 W/w + 3 W/u turns of others each tenant has one: W the sum of the weights that
        wait meanwhile, u the least of them, w its own.
        """
        waiting = band.waiting().values()
        for share in waiting:
            share.weights_most = max(share.weights_most, sum(s.weight for s in waiting))
            share.weight_least = min(share.weight_least, *(s.weight for s in waiting))
            share.passed = 0 if share is served else share.passed + 1
            most = share.weights_most
            assert share.passed <= 2 * most / share.weight + 3 * most / share.weight_least
