"""`Phoenix.LiveDashboard.SystemInfo`: what the dashboard, having sent its module, calls of it.

The dashboard asks `code:is_loaded`, hears false, sends the module by `code:load_binary`, hears that
it is loaded, and from then on calls `..._callback` functions by erpc (by rpc before 0.9). These are
those functions, with the same arguments and shapes; structs are maps with `__struct__`.
"""

from __future__ import annotations

from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.exports import Exports
from bridge.node.inspection import machine_page
from bridge.node.inspection.application import Branch, tree
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.modules import SYSTEM_INFO
from bridge.node.inspection.seen import Seen
from bridge.node.inspection.texts import get, shown_to_elixir

Term = Any
OK, ERROR = Atom("ok"), Atom("error")
_PROCESS_DETAILS = Atom("Elixir.Phoenix.LiveDashboard.SystemInfo.ProcessDetails")
_NONE = b"None"  # what the dashboard shows of Phoenix where there is no Phoenix
_PAGE_OS_MON = Atom("os_mon")


def publish(exports: Exports, of: Inspection) -> None:
    _publish_home(exports, of)
    _publish_processes(exports, of)
    _publish_applications(exports, of)
    _publish_absent(exports)
    machine_page.publish(exports)


def _publish_home(exports: Exports, of: Inspection) -> None:
    @exports.function(SYSTEM_INFO)
    def capabilities_callback(requirements: Term) -> Term:
        wanted = requirements if isinstance(requirements, list) else []
        modules = [m for kind, m in _pairs(wanted) if kind == "module" and of.modules.has(m)]
        processes = [
            name
            for kind, name in _pairs(wanted)
            if kind == "process" and of.processes.find(name) is not None
        ]
        # The page of os_mon shows the machine; its figures are as true from here.
        applications = [
            name
            for kind, name in _pairs(wanted)
            if kind == "application" and name in (of.application.atom, _PAGE_OS_MON)
        ]
        return _map(
            system_info=None,
            **{"dashboard_running?": False},
            applications=applications,
            modules=modules,
            processes=processes,
        )

    @exports.function(SYSTEM_INFO)
    def usage_callback() -> Term:
        return usage(of)

    @exports.function(SYSTEM_INFO)
    def info_callback(keys: Term, app: Term) -> Term:
        """Of the environment only the names: it may hold secrets, and is the operator's."""
        get_info = of.system.get
        environment = [(key, None) for key in keys] if isinstance(keys, list) else None
        ours = app == of.application.atom
        return _map(
            system_info=_map(
                banner=get_info(Atom("system_version")),
                elixir_version=_NONE,
                phoenix_version=_NONE,
                app_version=of.application.version.encode() if ours else _NONE,
                system_architecture=get_info(Atom("system_architecture")),
            ),
            system_limits=_map(
                atoms=get_info(Atom("atom_limit")),
                ports=get_info(Atom("port_limit")),
                processes=get_info(Atom("process_limit")),
            ),
            system_usage=usage(of),
            environment=environment,
        )

    @exports.function(SYSTEM_INFO)
    def memory_allocators_callback(max_before: Term) -> Term:
        return allocators(of, max_before)


def _publish_processes(exports: Exports, of: Inspection) -> None:
    @exports.function(SYSTEM_INFO)
    async def processes_callback(
        search: Term, sort_by: Term, sort_dir: Term, limit: Term, before: Term
    ) -> Term:
        rows = await of.processes.rows(lambda seen: _process_row(seen, before))
        shown = [row for row in rows if _matches(row, search)]
        count = len(shown) if search is not None else len(rows)
        reductions = {row["pid"]: row["reductions"] for row in shown}
        page = _page(shown, sort_by, sort_dir, limit)
        return ([_keyword(row) for row in page], count, reductions)

    @exports.function(SYSTEM_INFO)
    def process_info_callback(pid: Term) -> Term:
        seen = of.processes.find(pid) if isinstance(pid, Pid) else None
        return ERROR if seen is None else (OK, _process_page(of, seen))


def _publish_applications(exports: Exports, of: Inspection) -> None:
    application = of.application

    @exports.function(SYSTEM_INFO)
    def applications_info_callback(
        search: Term, sort_by: Term, sort_dir: Term, limit: Term
    ) -> Term:
        row = {
            "name": application.atom,
            "description": application.description.encode(),
            "version": application.version.encode(),
            "state": Atom("started"),
            "tree?": True,
        }
        texts = (application.name, application.description.lower(), application.version)
        found = search is None or any(search.decode() in text for text in texts)
        return ([_keyword(row)], 1) if found else ([], 0)

    @exports.function(SYSTEM_INFO)
    def app_tree_callback(app: Term) -> Term:
        root = tree(of.processes) if app == application.atom else None
        if root is None:
            return ERROR
        return ((Atom("master"), root.seen.pid, []), [_branch(below) for below in root.below])


def _publish_absent(exports: Exports) -> None:
    """Ports and tables: there are none."""

    @exports.function(SYSTEM_INFO)
    def ports_callback(search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        return ([], 0)

    @exports.function(SYSTEM_INFO)
    def port_info_callback(port: Term) -> Term:
        return ERROR

    @exports.function(SYSTEM_INFO)
    def ets_callback(search: Term, sort_by: Term, sort_dir: Term, limit: Term) -> Term:
        return ([], 0)

    @exports.function(SYSTEM_INFO)
    def ets_info_callback(table: Term) -> Term:
        return ERROR


# -- the pages ------------------------------------------------------------------------------------


def usage(of: Inspection) -> Term:
    """`system_usage` of the home page."""
    figures = of.figures
    memory = figures.memory()
    (_, received), (_, sent) = figures.io()
    shown = {name: memory[name] for name in ("total", "atom", "binary", "code", "ets")}
    shown["process"] = memory["processes"]
    shown["other"] = memory["total"] - sum(shown[name] for name in shown if name != "total")
    queue = figures.run_queue()
    return _map(
        atoms=0,
        ports=0,
        processes=len(of.processes),
        io=(received, sent),
        uptime=figures.uptime_ms(),
        memory=_map(**shown),
        total_run_queue=queue,
        cpu_run_queue=queue,
    )


def allocators(of: Inspection, max_before: Term) -> Term:
    """A row for each allocator and their total, and the greatest sizes seen so far."""
    rows = [(a.name, a.blocks, a.carriers) for a in of.figures.allocators()]
    total = ("total", sum(row[1] for row in rows), sum(row[2] for row in rows))
    maxima: dict[Term, Term] = {}
    shown = []
    for name, blocks, carriers in [total, *rows]:
        atom = Atom(name)
        maxima[atom] = max(get(max_before, atom, 0), carriers)
        shown.append(
            _map(
                name=atom,
                block_size=blocks,
                carrier_size=carriers,
                max_carrier_size=maxima[atom],
            )
        )
    return (shown, maxima)


def _process_row(seen: Seen, before: Term) -> dict[str, Any]:
    reductions = seen.reductions
    return {
        "pid": seen.pid,
        "name_or_initial_call": shown_to_elixir(seen),
        "reductions_diff": reductions - get(before, seen.pid, 0),
        "memory": seen.memory,
        "reductions": reductions,
        "message_queue_len": seen.message_queue_len,
        "current_function": seen.current_function,
    }


def _matches(row: dict[str, Any], search: Term) -> bool:
    """`search` comes in lower case."""
    if not isinstance(search, bytes):
        return True
    pid = f"<0.{row['pid'].id}.{row['pid'].serial}>".encode()
    return search in pid or search in row["name_or_initial_call"].lower()


def _page(
    rows: list[dict[str, Any]], sort_by: Term, sort_dir: Term, limit: Term
) -> list[dict[str, Any]]:
    column = sort_by.name if isinstance(sort_by, Atom) else ""
    if rows and type(rows[0].get(column)) is int:
        rows = sorted(rows, key=lambda row: row[column], reverse=sort_dir == Atom("desc"))
    return rows[:limit] if type(limit) is int else rows


def _process_page(of: Inspection, seen: Seen) -> Term:
    def person(target: Term) -> Term:
        return _details(of, target)

    ancestors = [] if seen.parent is None else [person(seen.parent)]
    zero_words = dict.fromkeys(("total_heap_size", "heap_size", "stack_size"), 0)
    return _keyword(
        {
            "initial_call": seen.initial_call,
            "ancestors": ancestors,
            "label": seen.details.label,
            "links": [person(other) for other in seen.links],
            "monitors": [person(target) for target in seen.targets],
            "monitored_by": [person(other) for other in seen.monitored_by],
            "registered_name": seen.name if seen.name is not None else [],
            "current_function": seen.current_function,
            "status": seen.status,
            "message_queue_len": seen.message_queue_len,
            "trap_exit": seen.process.trap_exit,
            "error_handler": Atom("error_handler"),
            "priority": Atom("normal"),
            "group_leader": person(seen.group_leader),
            **zero_words,
            "reductions": seen.reductions,
            "garbage_collection": [],
            "suspending": [],
            "current_stacktrace": seen.stack,
        }
    )


def _details(of: Inspection, target: Term) -> Term:
    """`%ProcessDetails{}` of a pid; of a name at our node too; another node's name as it is."""
    match target:
        case Pid():
            pid, seen = target, of.processes.find(target)
        case (Atom() as name, Atom() as node) if node == Atom(of.node.name):
            seen = of.processes.find(name)
            if seen is None:
                return target
            pid = seen.pid
        case _:
            return target
    return _map(
        __struct__=_PROCESS_DETAILS,
        pid=pid,
        name_or_initial_call=None if seen is None else shown_to_elixir(seen),
        initial_call=None if seen is None else seen.initial_call,
    )


def _branch(branch: Branch) -> Term:
    seen = branch.seen
    name: Term = seen.name if seen.name is not None else seen.details.label
    return (
        (seen.kind, seen.pid, [] if name is None else name),
        [_branch(below) for below in branch.below],
    )


# -- shapes ---------------------------------------------------------------------------------------


def _map(**fields: Term) -> dict[Atom, Term]:
    return {Atom(name): value for name, value in fields.items()}


def _keyword(fields: dict[str, Any]) -> list[tuple[Atom, Term]]:
    return [(Atom(name), value) for name, value in fields.items()]


def _pairs(requirements: list[Any]) -> list[tuple[str, Term]]:
    return [
        (kind.name, what)
        for kind, what in (pair for pair in requirements if type(pair) is tuple and len(pair) == 2)
        if isinstance(kind, Atom)
    ]
