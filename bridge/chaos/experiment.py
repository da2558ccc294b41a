"""Runs a plan: callers that call all the time, injections at their times, then the judgement.

    steady ──────────> trouble ─────────────> settle ─────────> judged
    callers call       injections at at_ms    what has a length
    through a proxy    from here on           is over by now

Callers are tasks of one node of ours, as any caller's: they reach the bridge through a proxy, so
that a plan can have the wire as well.
"""

from __future__ import annotations

import trio

from bridge.chaos.injectors import Injectors
from bridge.chaos.measures import OK, Done, Report, Sample, judge
from bridge.chaos.plan import Injection, Plan
from bridge.chaos.proxy import open_proxy
from bridge.dist.epmd_client import EpmdClient
from bridge.dist.errors import EpmdError
from bridge.dist.names import split_node_name
from bridge.etf import Atom, Term
from bridge.node import NoConnection, Node, ProcessDown, open_node
from bridge.ops import diagnostics
from bridge.ops.asking import Address, reach
from bridge.ops.errors import NoStatus, Refused

DISPATCHER = "Elixir.Ringbridge.JobDispatcher"
GRACE_S = 5.0  # for leaving no hook behind, whatever ended the run
LATE_S = 20.0  # longer than the plan says, for injections that a busy machine holds up
UNREACHED_PAUSE_S = 0.02  # a caller whose call did not even leave does not spin


async def run(plan: Plan, address: Address, own_name: str) -> Report:
    """Carry the plan out against a bridge of this machine. Raises Refused, NoStatus, TlsError: it
    could not begin.
    """
    host, port = await where(address)
    async with reach(address) as operator:
        status = await operator.get(diagnostics.NAMES[0], Atom("status"))
        async with open_proxy(host, port) as proxy:
            peers = {address.name: f"{host}:{proxy.port}"}
            async with open_node(
                own_name, cookie=address.cookie, listen=False, peers=peers, tls=address.tls
            ) as node:
                injectors = Injectors(operator, plan.role, status["os_pid"], proxy)
                try:
                    return await Experiment(plan, node, address.name, injectors).run()
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_S):
                        await injectors.switch_off()


async def where(address: Address) -> tuple[str, int]:
    """Host and port of the bridge. Raises NoStatus."""
    alive, host = split_node_name(address.name)
    told = address.peers.get(address.name)
    if isinstance(told, int):
        return host, told
    if told is not None:
        at, _, text = told.rpartition(":")
        return at.strip("[]"), int(text)
    try:
        port = await EpmdClient.from_environ(if_absent="fail").lookup(alive, host)
    except EpmdError as error:
        raise NoStatus(f"no bridge answers as {address.name}: {error}") from error
    if port is None:
        raise NoStatus(f"no bridge answers as {address.name}: epmd does not know it")
    return host, port


class Experiment:
    """One run. `node` makes the calls, `injectors` the trouble."""

    def __init__(self, plan: Plan, node: Node, bridge: str, injectors: Injectors) -> None:
        self._plan = plan
        self._node = node
        self._target = (DISPATCHER, bridge)
        self._injectors = injectors
        self._samples: list[Sample] = []
        self._injected: list[Done] = []
        self._all_begun = trio.Event()
        self._began_s = 0.0
        self._over = False

    async def run(self) -> Report:
        plan = self._plan
        first = await self._call()  # which connects: no part of the steady state
        if first != OK:
            raise Refused(f"{plan.role} does not answer {plan.payload!r} as it is: {first}")
        self._began_s = trio.current_time()
        async with trio.open_nursery() as callers:
            for _ in range(plan.callers):
                callers.start_soon(self._caller)
            await trio.sleep(plan.steady_ms / 1000)
            began_s = self._now_s()
            async with trio.open_nursery() as trouble:
                for injection in plan.inject:
                    trouble.start_soon(self._inject, injection)
                await trio.sleep(plan.trouble_ms / 1000)
                with trio.move_on_after(LATE_S):
                    await self._all_begun.wait()
                trouble.cancel_scope.cancel()
            trouble_s = self._now_s() - began_s
            await self._injectors.switch_off()
            await trio.sleep(plan.settle_ms / 1000)
            self._over = True
        return judge(plan, self._samples, self._injected, trouble_s)

    def _now_s(self) -> float:
        return trio.current_time() - self._began_s

    async def _caller(self) -> None:
        while not self._over:
            began_s = self._now_s()
            outcome = await self._call()
            self._samples.append(Sample(began_s, self._now_s(), outcome))
            if outcome == "noconnection":
                await trio.sleep(UNREACHED_PAUSE_S)

    async def _call(self) -> str:
        plan = self._plan
        options = [(Atom("opcode"), plan.opcode)] if plan.opcode else []
        request = (Atom("submit"), Atom(plan.role), plan.payload.encode(), options)
        try:
            answer = await self._node.call(self._target, request, timeout=plan.timeout_ms / 1000)
        except trio.TooSlowError:
            return "no_answer"
        except NoConnection:
            return "noconnection"
        except ProcessDown as down:
            return word(down.reason)
        return OK if isinstance(answer, tuple) and answer[0] == Atom("ok") else word(answer)

    async def _inject(self, injection: Injection) -> None:
        began_s = trio.current_time()
        for at_ms in self._plan.times_ms(injection):
            await trio.sleep_until(began_s + at_ms / 1000)
            try:
                await self._injectors.inject(injection, self._note)
            except (Refused, NoStatus) as error:
                self._note(str(error), failed=True)

    def _note(self, what: str, *, failed: bool = False) -> None:
        self._injected.append(Done(self._now_s(), what, failed))
        if len(self._injected) >= self._plan.injections():
            self._all_begun.set()


def word(term: Term) -> str:
    """The reason in `{:error, Reason}`, or in an exit: its own name, or that of its tuple."""
    match term:
        case (Atom("error"), reason):
            return word(reason)
        case (Atom(name), *_) | Atom(name):
            return name
    return repr(term)[:40]
