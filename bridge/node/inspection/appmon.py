"""`appmon_info`: the process that sends observer's Applications tab what it shows, whenever that
has changed.

One for the node, registered as `appmon_info`. A window starts it by rpc (`start_link2`), becomes
its client by a link, and orders work by casts `{From, Command, Aux, OnOff, Options}`, as
only clients can:

    app_ctrl    the applications           [{Master, Name, {Name, Description, Version}}]
    app         the tree of the one `Aux`  {Root, [{Pid, Name}], [{Above, Below}], [{One, Other}]}
    pinfo       process_info as text
    load        how busy the node is, 0 to 16

An order is looked at again after its `timeout` (2 s), and `{delivery, Pid, Command, Aux, Result}`
goes to the one who ordered it. The process ends with the one who started it, or with its last
client.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import trio

from bridge.etf import Atom, Pid, canonical, charlist
from bridge.node.exports import Exports
from bridge.node.functions.caller import Caller
from bridge.node.inspection.application import Branch, tree
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.process_info import badarg, process_info_all
from bridge.node.inspection.seen import Seen
from bridge.node.process.ends import Stop
from bridge.node.process.handle import ProcessHandle
from bridge.node.signals import gen

Term = Any
NAME = "appmon_info"
PERIOD_MS = 2000
PERIOD_MIN_MS = 100  # whoever orders more often gets this
ORDERS_MAX = 1000
LOAD_RANGE = 16
_COMMANDS = ("app_ctrl", "app", "pinfo", "load")


def publish(exports: Exports, of: Inspection) -> None:
    clients: set[Pid] = set()  # of the one that runs

    @exports.function(NAME, "start_link2")
    def start_link2(starter: Term, client: Term, options: Term, *, caller: Caller) -> Term:
        for pid in (starter, client):
            # What it is linked with, it can end: that is for who asks to risk, and nobody else.
            if not isinstance(pid, Pid) or pid.node.name != caller.node:
                raise badarg()
        node = of.node
        process = node.router.table.find(Atom(NAME))
        if process is None:
            clients.clear()
            process = node.spawn_nowait(run, of, starter, clients, name=NAME, trap_exit=True)
            node.router.link(process, starter)
        clients.add(client)
        node.router.link(process, client)
        return (gen.OK, process.pid)


@dataclass(slots=True)
class Order:
    """Something to be delivered: when it is due, and what went out last."""

    aux: Term
    due_s: float
    period_s: float | None  # None: once
    sent: Term = None


Key = tuple[str, bytes, Pid]  # command, the aux as canonical bytes, client


async def run(me: ProcessHandle, of: Inspection, starter: Pid, clients: set[Pid]) -> None:
    """The process, until its starter or its last client ends."""
    orders: dict[Key, Order] = {}
    while True:
        due_s = min((order.due_s for order in orders.values()), default=inf)
        wait_s = max(0.0, due_s - trio.current_time())
        try:
            message = await me.receive(timeout=None if wait_s == inf else wait_s)
        except trio.TooSlowError:
            _deliver_due(me, of, orders)
            continue
        match message:
            case (Atom("EXIT"), Pid() as pid, reason):
                if pid == starter:
                    raise Stop(reason)
                clients.discard(pid)
                for key in [key for key in orders if key[2] == pid]:
                    del orders[key]
                if not clients:
                    return
            case (Atom("$gen_cast"), (Pid() as pid, Atom(command), aux, on, options)) if (
                pid in clients
            ):
                _take_order(orders, (command, canonical(aux), pid), aux, on, options)
                _deliver_due(me, of, orders)
            case (Atom("$gen_call"), _, _):
                if (sender := gen.sender_of(message[1])) is not None:
                    me.send(sender.reply_to, sender.reply(gen.OK))


def _take_order(orders: dict[Key, Order], key: Key, aux: Term, on: Term, options: Term) -> None:
    if on is not True:
        orders.pop(key, None)
    elif key[0] in _COMMANDS and (key in orders or len(orders) < ORDERS_MAX):
        orders[key] = Order(aux, trio.current_time(), _period_s(options))


def _period_s(options: Term) -> float | None:
    timeout: Term = PERIOD_MS
    for option in options if isinstance(options, list) else []:
        match option:
            case (Atom("timeout"), timeout):
                pass
    if timeout == Atom("at_most_once"):
        return None
    period_ms = timeout if type(timeout) is int else PERIOD_MS
    return max(PERIOD_MIN_MS, period_ms) / 1000


def _deliver_due(me: ProcessHandle, of: Inspection, orders: dict[Key, Order]) -> None:
    """Look at each order that is due; what has changed goes out."""
    now_s = trio.current_time()
    for key, order in list(orders.items()):
        if order.due_s > now_s:
            continue
        command, _, client = key
        result = _result(of, command, order.aux, order.sent)
        if result != order.sent:
            me.send(client, (Atom("delivery"), me.pid, Atom(command), order.aux, result))
        if order.period_s is None:
            del orders[key]
        else:
            order.sent = result
            order.due_s = now_s + order.period_s


def _result(of: Inspection, command: str, aux: Term, before: Term) -> Term:
    match command:
        case "app_ctrl":
            return [(of.root, of.application.atom, of.application.term())]
        case "app":
            root = tree(of.processes) if aux == of.application.atom else None
            return tree_term(root) if root is not None else ([], [], [], [])
        case "pinfo":
            info = process_info_all(of.processes, aux) if of.processes.is_local(aux) else ""
            return charlist(f"Node: {of.node.name}, Process: {aux!r}\n{info!r}\n")
        case _:
            load = min(LOAD_RANGE, of.figures.run_queue())
            return (before[1] if isinstance(before, tuple) else 0, load)


def tree_term(root: Branch) -> Term:
    """{Root, Processes, Links, Other links}: names as unique strings. Links that are not those of
    the tree, to processes of other nodes too, are the others.
    """
    branches = list(root)
    names: dict[Pid, Term] = {branch.seen.pid: shown_name(branch.seen) for branch in branches}
    links = [
        (names[branch.seen.pid], names[below.seen.pid])
        for branch in branches
        for below in branch.below
    ]
    primary = {(branch.seen.pid, below.seen.pid) for branch in branches for below in branch.below}
    others = []
    for branch in branches:
        for other in branch.seen.links:
            pair = (branch.seen.pid, other)
            if other in names and (pair in primary or pair[::-1] in primary):
                continue
            if other not in names:
                names[other] = charlist(f"{_pid_text(other)} {other.node}")
            others.append((names[branch.seen.pid], names[other]))
    return (names[root.seen.pid], list(names.items()), links, others)


def shown_name(seen: Seen) -> list[int]:
    """The registered name, else the label with the pid, else the pid."""
    if seen.name is not None:
        return charlist(seen.name.name)
    if isinstance(seen.details.label, bytes):
        return charlist(f"{seen.details.label.decode('utf-8', 'replace')} {_pid_text(seen.pid)}")
    return charlist(_pid_text(seen.pid))


def _pid_text(pid: Pid) -> str:
    """As `pid_to_list` gives it where the pid is local."""
    return f"<0.{pid.id}.{pid.serial}>"
