"""Elixir's own modules, for `:rpc.call(node, Process, :info, [pid])` and its like from iex.

They are erlang's answers in Elixir's dress: `nil` for `undefined`, binaries for charlists.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bridge.etf import Atom, Pid
from bridge.node.exports import Exports
from bridge.node.inspection.bifs import in_unit
from bridge.node.inspection.inspection import Inspection
from bridge.node.inspection.process_info import badarg, process_info, process_info_all
from bridge.node.inspection.seen import UNDEFINED
from bridge.node.inspection.system_info import OTP_RELEASE

Term = Any
_NATIVE = Atom("native")


def publish(exports: Exports, of: Inspection) -> None:
    _publish_process(exports, of)
    _publish_node(exports, of)
    _publish_system(exports, of)


def _nilled(term: Term) -> Term:
    return None if term == UNDEFINED else term


def _publish_process(exports: Exports, of: Inspection) -> None:
    processes = of.processes

    @exports.function("Process", "list")
    def list_() -> Term:
        return processes.pids()

    @exports.function("Process", "info")
    def info(pid: Term) -> Term:
        return _nilled(process_info_all(processes, pid))

    @exports.function("Process", "info")
    def info_of(pid: Term, items: Term) -> Term:
        answer = _nilled(process_info(processes, pid, items))
        return (items, []) if answer == [] and items != [] else answer

    @exports.function("Process", "alive?")
    def alive(pid: Term) -> Term:
        if not processes.is_local(pid):
            raise badarg()
        return processes.find(pid) is not None

    @exports.function("Process", "whereis")
    def whereis(name: Term) -> Term:
        seen = processes.find(name)
        return None if seen is None else seen.pid

    @exports.function("Process", "registered")
    def registered() -> Term:
        return processes.registered()


def _publish_node(exports: Exports, of: Inspection) -> None:
    @exports.function("Node", "self")
    def self_() -> Term:
        return Atom(of.node.name)

    @exports.function("Node", "list")
    def list_(which: Term = Atom("visible")) -> Term:  # noqa: B008  # an atom never changes
        return of.nodes(which)

    @exports.function("Node", "alive?")
    def alive() -> Term:
        return True

    @exports.function("Port", "list")
    def ports() -> Term:
        return []

    @exports.function("Port", "info")
    def port_info(port: Term, item: Term = None) -> Term:
        return None


def _publish_system(exports: Exports, of: Inspection) -> None:
    @exports.function("System", "otp_release")
    def otp_release() -> Term:
        return OTP_RELEASE.encode()

    @exports.function("System", "pid")
    def pid() -> Term:
        return str(os.getpid()).encode()

    @exports.function("System", "schedulers_online")
    def schedulers_online() -> Term:
        return of.figures.schedulers()

    @exports.function("System", "system_time")
    def system_time(unit: Term = _NATIVE) -> Term:
        return in_unit(time.time_ns(), unit)

    @exports.function("System", "monotonic_time")
    def monotonic_time(unit: Term = _NATIVE) -> Term:
        return in_unit(time.monotonic_ns(), unit)

    @exports.function("Application", "started_applications")
    def started_applications(timeout: Term = None) -> Term:
        return [of.application.term()]

    @exports.function("Application", "loaded_applications")
    def loaded_applications() -> Term:
        return [of.application.term()]

    @exports.function("Application", "spec")
    def spec(name: Term, key: Term) -> Term:
        match key:
            case Atom("vsn") if name == of.application.atom:
                return [*of.application.version.encode()]
            case Atom("description") if name == of.application.atom:
                return [*of.application.description.encode()]
            case _:
                return None

    @exports.function("Application", "get_application")
    def get_application(of_what: Term) -> Term:
        local = isinstance(of_what, Pid) and of.processes.find(of_what) is not None
        return of.application.atom if local or of.modules.has(of_what) else None
