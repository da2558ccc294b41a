"""What tools ask of OTP's own modules: applications, supervisors, `sys`, `proc_lib`, tables."""

from __future__ import annotations

import os
import platform
import socket
from math import inf
from typing import Any

import trio

from bridge.etf import Atom, Pid, charlist
from bridge.node.calls import PendingCall, ProcessDown
from bridge.node.exports import Exports, Raise
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.process_info import badarg
from bridge.node.inspection.seen import UNDEFINED, Seen
from bridge.node.signals import gen

Term = Any
SYS_TIMEOUT_MS = 5000
_TRANSLATED_BY_DEFAULT = (Atom("proc_lib"), Atom("init_p"), 5)


def publish(exports: Exports, of: Inspection) -> None:
    _publish_applications(exports, of)
    _publish_processes(exports, of)
    _publish_tables(exports)
    _publish_machine(exports)


def _publish_applications(exports: Exports, of: Inspection) -> None:
    application = of.application

    @exports.function("application", "which_applications")
    def which_applications(timeout: Term = None) -> Term:
        return [application.term()]

    @exports.function("application", "loaded_applications")
    def loaded_applications() -> Term:
        return [application.term()]

    @exports.function("application", "get_key")
    def get_key(name: Term, key: Term) -> Term:
        known = {"description": application.description, "vsn": application.version}
        if name != application.atom or not isinstance(key, Atom) or key.name not in known:
            return UNDEFINED
        return (Atom("ok"), charlist(known[key.name]))

    @exports.function("application", "get_application")
    def get_application(of_what: Term) -> Term:
        local = of.processes.is_local(of_what) and of.processes.find(of_what) is not None
        known = local or (isinstance(of_what, Atom) and of.modules.has(of_what))
        return (Atom("ok"), application.atom) if known else UNDEFINED

    @exports.function("application", "get_env")
    def get_env(name: Term, key: Term) -> Term:
        return UNDEFINED

    @exports.function("application", "get_all_env")
    def get_all_env(name: Term) -> Term:
        return []

    @exports.function("application_controller", "get_master")
    def get_master(name: Term) -> Term:
        return of.root if name == application.atom else UNDEFINED

    @exports.function("application_master", "get_child")
    def get_child(master: Term) -> Term:
        return (master, application.atom)

    @exports.function("init", "get_status")
    def get_status() -> Term:
        return (Atom("started"), Atom("started"))


def _publish_processes(exports: Exports, of: Inspection) -> None:
    def find(target: Term) -> Seen:
        seen = of.processes.find(target) if isinstance(target, Pid | Atom) else None
        if seen is None:
            raise Raise("exit", gen.NOPROC)
        return seen

    async def ask_supervisor(target: Term, request: str) -> Term:
        pid = find(target).pid
        return await ask(of, pid, lambda call: call.ask(Atom(request)), SYS_TIMEOUT_MS, request)

    @exports.function("supervisor", "which_children")
    async def which_children(target: Term) -> Term:
        return await ask_supervisor(target, "which_children")

    @exports.function("supervisor", "count_children")
    async def count_children(target: Term) -> Term:
        return await ask_supervisor(target, "count_children")

    async def ask_sys(target: Term, request: str, within_ms: Term) -> Term:
        pid = find(target).pid
        return await ask(of, pid, lambda call: call.ask_system(Atom(request)), within_ms, request)

    @exports.function("sys", "get_status")
    async def get_status(target: Term, within_ms: Term = SYS_TIMEOUT_MS) -> Term:
        return await ask_sys(target, "get_status", within_ms)

    @exports.function("sys", "get_state")
    async def get_state(target: Term, within_ms: Term = SYS_TIMEOUT_MS) -> Term:
        match await ask_sys(target, "get_state", within_ms):
            case (Atom("ok"), state):
                return state
            case (Atom("error"), reason):
                raise Raise("error", reason)
            case state:
                return state

    @exports.function("proc_lib", "translate_initial_call")
    def translate_initial_call(pid: Term) -> Term:
        seen = of.processes.find(pid) if isinstance(pid, Pid) else None
        if seen is None:
            return _TRANSLATED_BY_DEFAULT
        of.modules.name(seen.module)
        return seen.initial_call if seen.is_proc_lib else _TRANSLATED_BY_DEFAULT

    @exports.function("proc_lib", "initial_call")
    def initial_call(pid: Term) -> Term:
        seen = of.processes.find(pid) if isinstance(pid, Pid) else None
        return False if seen is None or not seen.is_proc_lib else seen.initial_call

    @exports.function("proc_lib", "get_label")
    def get_label(pid: Term) -> Term:
        seen = of.processes.find(pid) if isinstance(pid, Pid) else None
        return UNDEFINED if seen is None else seen.label


async def ask(of: Inspection, pid: Pid, put: Any, timeout_ms: Term, what: str) -> Term:
    """One question to a process of ours, by the way that any caller's goes.

    Raises exit timeout or exit with the reason of the process' end, as `gen:call` does.
    """
    if timeout_ms != Atom("infinity") and (type(timeout_ms) is not int or timeout_ms < 0):
        raise badarg()
    limit_s = inf if timeout_ms == Atom("infinity") else timeout_ms / 1000
    call = PendingCall(of.node.router, of.node.caller(), pid)
    try:
        with trio.fail_after(limit_s):
            put(call)
            return await call.wait()
    except trio.TooSlowError:
        raise Raise("exit", (Atom("timeout"), (Atom("sys"), Atom(what), [pid]))) from None
    except ProcessDown as down:
        raise Raise("exit", down.reason) from None
    finally:
        call.forget()


def _publish_tables(exports: Exports) -> None:
    @exports.function("ets", "all")
    def ets_all() -> Term:
        return []

    @exports.function("ets", "info")
    def ets_info(table: Term, item: Term = None) -> Term:
        return UNDEFINED

    @exports.function("ets", "whereis")
    def ets_whereis(name: Term) -> Term:
        return UNDEFINED

    @exports.function("mnesia", "system_info")
    def mnesia_system_info(item: Term) -> Term:
        if item == Atom("is_running"):
            return Atom("no")
        raise badarg()


def _publish_machine(exports: Exports) -> None:
    @exports.function("os", "type")
    def os_type() -> Term:
        return (Atom("unix"), Atom(platform.system().lower()))

    @exports.function("os", "getpid")
    def getpid() -> Term:
        return charlist(str(os.getpid()))

    @exports.function("net_adm", "localhost")
    def localhost() -> Term:
        return charlist(socket.gethostname())

    @exports.function("inet", "gethostname")
    def gethostname() -> Term:
        return (Atom("ok"), charlist(socket.gethostname().partition(".")[0]))
