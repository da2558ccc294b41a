"""Calls of real programs, as our node was asked them: (how, module, function, arguments).

Recorded from observer 2.14 (OTP 25) through all its tabs and a process window, etop of the same
release, and the SystemInfo of LiveDashboard (its main branch of May 2025); those of OTP 29's
observer that differ are from its source. PID stands for a process of our node, WINDOW for one of
the asker's.
"""

from __future__ import annotations

from typing import Any, Literal

from bridge.etf import Atom

PID, WINDOW = Atom("$pid"), Atom("$window")
Call = tuple[Literal["call", "spawn"], str, str, list[Any]]


def _atoms(*names: str) -> list[Atom]:
    return [Atom(name) for name in names]


_BACKEND = Atom("observer_backend")
_HIDDEN = [(Atom("sys_hidden"), True), (Atom("unread_hidden"), True)]
_OVERVIEW = _atoms(
    "binary",
    "catchlevel",
    "current_function",
    "error_handler",
    "garbage_collection",
    "group_leader",
    "heap_size",
    "initial_call",
    "last_calls",
    "links",
    "memory",
    "message_queue_len",
    "monitored_by",
    "monitors",
    "priority",
    "reductions",
    "registered_name",
    "sequential_trace_token",
    "stack_size",
    "status",
    "suspending",
    "total_heap_size",
    "trace",
    "trap_exit",
)

OBSERVER: list[Call] = [
    ("call", "observer_backend", "sys_info", []),
    ("spawn", "observer_backend", "fetch_stats", [WINDOW, 500]),
    ("call", "erlang", "system_info", [Atom("dirty_cpu_schedulers")]),
    ("call", "appmon_info", "start_link2", [WINDOW, WINDOW, []]),
    ("call", "code", "ensure_loaded", [_BACKEND]),
    ("call", "erlang", "function_exported", [_BACKEND, Atom("procs_info"), 1]),
    ("spawn", "observer_backend", "procs_info", [WINDOW]),
    ("call", "erlang", "function_exported", [_BACKEND, Atom("get_port_list"), 0]),
    ("call", "observer_backend", "get_port_list", []),
    ("call", "erlang", "function_exported", [_BACKEND, Atom("get_socket_list"), 0]),
    ("call", "observer_backend", "socket_info", []),
    ("call", "observer_backend", "get_socket_list", []),
    ("call", "observer_backend", "get_table_list", [Atom("ets"), _HIDDEN]),
    ("call", "erlang", "process_info", [PID, Atom("registered_name")]),
    ("call", "erlang", "system_info", [Atom("wordsize")]),
    ("call", "erlang", "process_info", [PID, _OVERVIEW]),
    ("call", "erlang", "process_info", [PID, Atom("messages")]),
    ("call", "erlang", "process_info", [PID, Atom("dictionary")]),
    ("call", "erlang", "process_info", [PID, Atom("current_stacktrace")]),
    ("call", "proc_lib", "translate_initial_call", [PID]),
    ("call", "Counter", "module_info", [Atom("attributes")]),
    ("call", "sys", "get_status", [PID, 200]),
    # OTP 27 to 29
    ("call", "proc_lib", "get_label", [PID]),
    ("call", "erlang", "process_info", [PID, (Atom("dictionary"), Atom("$process_label"))]),
]

ETOP: list[Call] = [
    ("call", "observer_backend", "vsn", []),
    ("spawn", "observer_backend", "etop_collect", [WINDOW]),
]

_DASHBOARD = "Phoenix.LiveDashboard.SystemInfo"
_MODULE = Atom(f"Elixir.{_DASHBOARD}")
_LIST = [None, Atom("memory"), Atom("desc"), 50]

DASHBOARD: list[Call] = [
    ("call", "code", "is_loaded", [_MODULE]),
    ("call", "code", "load_binary", [_MODULE, [*b"system_info.ex"], b"FOR1"]),
    ("call", _DASHBOARD, "capabilities_callback", [[(Atom("application"), Atom("os_mon"))]]),
    ("call", _DASHBOARD, "info_callback", [None, Atom("demo")]),
    ("call", _DASHBOARD, "usage_callback", []),
    ("call", _DASHBOARD, "processes_callback", [*_LIST, None]),
    ("call", _DASHBOARD, "process_info_callback", [PID]),
    ("call", _DASHBOARD, "applications_info_callback", [None, Atom("name"), Atom("asc"), 50]),
    ("call", _DASHBOARD, "app_tree_callback", [Atom("ringbridge")]),
    ("call", _DASHBOARD, "memory_allocators_callback", [None]),
    ("call", _DASHBOARD, "os_mon_callback", []),
    ("call", _DASHBOARD, "ports_callback", _LIST),
    ("call", _DASHBOARD, "sockets_callback", _LIST),
    ("call", _DASHBOARD, "ets_callback", _LIST),
]

# The shell's nregs(), i(Pid) and their like, and what people type.
SHELL: list[Call] = [
    ("call", "erlang", "registered", []),
    ("call", "erlang", "whereis", [Atom("counter")]),
    ("call", "erlang", "process_info", [PID]),
    ("call", "erlang", "processes", []),
    ("call", "erlang", "memory", []),
    ("call", "Process", "info", [PID]),
    ("call", "Process", "list", []),
    ("call", "Node", "list", []),
]
