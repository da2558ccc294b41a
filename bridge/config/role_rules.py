"""The rules of a role that no type can say: those of the role itself, then each sub-table's."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from bridge.config.admission import broken_admission_rules
from bridge.config.ops import SchemaError, compile_ops
from bridge.config.role import CallbackSettings, PeerSettings, RoleConfig
from bridge.config.sandbox import broken_sandbox_rules
from bridge.dist.cookie import COOKIE_VARIABLE
from bridge.dist.names import pattern_problem
from bridge.fabric.layout import HEARTBEAT_MS

PAGE_BYTES = 4_096
HANG_MS_MIN = 2 * HEARTBEAT_MS
ROLE_NAME_MAX_BYTES = 63  # a link's header holds it in 64 bytes, NUL-terminated
ATOM_MAX_BYTES = 127  # dispatch.h, RB_ROLE_ATOM_BYTES
RESERVED_PREFIX = "RINGBRIDGE_"  # of environment variables: the bridge's own

Broken = tuple[str, Any, str, str]  # key, value, rule, mend


def broken_role_rules(name: str, role: RoleConfig) -> Iterator[Broken]:
    key = f"roles.{name}"
    if not 1 <= len(name.encode()) <= ROLE_NAME_MAX_BYTES or not name.isprintable():
        rule = f"a role's name has 1 to {ROLE_NAME_MAX_BYTES} bytes, all printable"
        yield key, name, rule, "Choose a shorter, plain name"
    yield from _broken_worker_rules(key, role)
    for variable, value in role.env.items():
        if variable.startswith(RESERVED_PREFIX):
            rule = f"{RESERVED_PREFIX}* is set by the bridge itself"
            if variable == COOKIE_VARIABLE:
                rule = "no worker is ever given the cookie: who holds it owns the cluster"
            yield f"{key}.env", variable, rule, "Take it out, or use another name"
        elif "\0" in value or "=" in variable or not variable or "\0" in variable:
            rule = "a variable's name has no = and neither name nor value a NUL character"
            yield f"{key}.env", variable, rule, "Correct it"
    for atom in role.atoms:
        if not 1 <= len(atom.encode(errors="replace")) <= ATOM_MAX_BYTES or "\0" in atom:
            rule = f"a declared atom has 1 to {ATOM_MAX_BYTES} bytes of UTF-8, none of them NUL"
            yield f"{key}.atoms", atom, rule, "Shorten it, or let the worker answer with a binary"
    if role.pool_bytes % PAGE_BYTES:
        mend = f"Take {role.pool_bytes // PAGE_BYTES * PAGE_BYTES}"
        yield f"{key}.pool_bytes", role.pool_bytes, f"it must be a multiple of {PAGE_BYTES}", mend
    if 0 < role.hang_ms < HANG_MS_MIN:
        rule = f"kits beat every {HEARTBEAT_MS} ms: below {HANG_MS_MIN} good workers would be ended"
        yield f"{key}.hang_ms", role.hang_ms, rule, f"Take {HANG_MS_MIN} or more, or 0 for never"
    for lower, upper in (
        ("payload_bytes_max", "pool_bytes"),
        ("timeout_default_ms", "timeout_max_ms"),
        ("backoff_min_ms", "backoff_max_ms"),
    ):
        low, high = getattr(role, lower), getattr(role, upper)
        if low > high:
            rule = f"it must not be above {upper}, which is {high}"
            yield f"{key}.{lower}", low, rule, f"Lower it, or raise {upper}"
    try:
        compile_ops(role.ops)
    except SchemaError as error:
        yield f"{key}.ops.{error.at}", error.value, error.rule, "docs/ops.md has the language"
    yield from broken_sandbox_rules(key, role.sandbox)
    yield from _broken_callback_rules(key, role.callback)
    checkpoint = role.checkpoint
    if (checkpoint.every_ms or checkpoint.every_jobs) and not checkpoint.keep:
        rule = "this role keeps no checkpoints, so there is no time for them"
        yield f"{key}.checkpoint", None, rule, "Set keep = true, or leave every_ms and every_jobs"
    yield from broken_admission_rules(key, role.admission, role.breaker)


def _broken_worker_rules(key: str, role: RoleConfig) -> Iterator[Broken]:
    """Who does the work: programs of the bridge's own, or processes of other nodes, or both."""
    if role.command and not role.command[0]:
        yield f"{key}.command", role.command, "its first element is the program", "Name the program"
    if role.workers and not role.command:
        mend = 'Write it like command = ["./my-worker"], or workers = 0 for remote workers alone'
        yield f"{key}.command", None, "it is missing", mend
    if not role.workers and not role.remote.nodes:
        rule = f"it must be at least 1, as no node may serve {key.partition('.')[2]} either"
        yield f"{key}.workers", 0, rule, f"The default is 1; or name nodes in [{key}.remote]"
    for node in role.remote.nodes:
        if problem := pattern_problem(node):
            mend = 'List full node names, like "app@10.0.0.5", or globs, like "app*@10.0.0.?"'
            yield f"{key}.remote.nodes", node, problem, mend


def _broken_callback_rules(key: str, callback: CallbackSettings) -> Iterator[Broken]:
    for text in callback.allow:
        name, at, node = text.partition("@")
        problem = pattern_problem(node) if at and "*" not in node else None
        if not name or (at and not node) or problem:
            rule = problem or "it is a registered name, or name@node; * stands for any characters"
            mend = 'Write it like "Elixir.MyApp.Tracker" or "tracker@app@10.0.0.5"'
            yield f"{key}.callback.allow", text, rule, mend
    for node in callback.pids:
        if not node or ("*" not in node and pattern_problem(node)):
            mend = 'List full node names, like "app@10.0.0.5"; * stands for any characters'
            yield f"{key}.callback.pids", node, pattern_problem(node) or "it is empty", mend


def broken_peer_rules(name: str, peers: PeerSettings, roles: Collection[str]) -> Iterator[Broken]:
    """A name that is no role's would be a policy for nobody, by a slip most likely."""
    key = f"roles.{name}.peers.allow"
    for text in peers.allow:
        if not text:
            mend = 'List names of roles, like "pathfinding"; * stands for any characters'
            yield key, text, "it is empty", mend
        elif "*" not in text and text not in roles:
            near = difflib.get_close_matches(text, roles, n=1)
            way = f"Take it out, or write {text}* for roles that are yet to come."
            mend = f"Did you mean {near[0]}?" if near else way
            yield key, text, f"there is no role {text}", f"{mend} The roles are: {', '.join(roles)}"


def power_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)
