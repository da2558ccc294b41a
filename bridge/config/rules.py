"""The rules that no type can say, in the order of the file."""

from __future__ import annotations

import ipaddress
import pwd
from collections.abc import Iterator

from bridge.config.groups import broken_group_rules
from bridge.config.role import RoleConfig
from bridge.config.role_rules import (
    Broken,
    broken_peer_rules,
    broken_role_rules,
    power_below,
)
from bridge.config.sections import (
    LaneSettings,
    LimitSettings,
    LinkSettings,
    MetricsSettings,
    NodeConfig,
    TenantSettings,
)
from bridge.config.whole import Config
from bridge.dist.finding import Places
from bridge.dist.names import node_name_problem, pattern_problem

ROLES_MAX = 64  # of the relay, as WORKERS_MAX
WORKERS_MAX = 4_096
EVERYBODY = "*"  # a table for all who have none of their own
NODES_MAX = 1_024
TENANTS_MAX = 1_024  # well below the relay's 4,096, which a reload may reach for a moment
TENANT_NAME_MAX_BYTES = 64
PAGE_BYTES = 4_096
RESULT_BLOCKS_MAX = 1 << 20  # of a link: the ring that gives them back has a slot for each


def broken_rules(config: Config) -> Iterator[Broken]:
    """The rules that no type can say, in the order of the file."""
    yield from _broken_node_rules(config.node)
    yield from _broken_tls_rules(config)
    yield from _broken_limits(config.limits)
    yield from _broken_link_rules("link", config.link)
    yield from _broken_lane_rules(config.lanes)
    yield from _broken_metrics(config.metrics)
    if config.checkpoints.key_file is not None and config.checkpoints.file is None:
        rule = "what is kept in memory is not encrypted"
        yield "checkpoints.key_file", config.checkpoints.key_file, rule, "Name a file as well"
    if not config.roles:
        mend = "Add a table [roles.<name>] with a command, like the project's own ringbridge.toml"
        yield "roles", None, "there is no role, so no job could ever run", mend
    if len(config.roles) > ROLES_MAX:
        yield "roles", None, f"a bridge has at most {ROLES_MAX} roles", "Run a second bridge"
    workers = sum(role.workers_most for role in config.roles.values())
    if workers > WORKERS_MAX // 2:  # the other half of the relay's places is for their successors
        rule = f"a bridge has at most {WORKERS_MAX // 2} workers, these are {workers}"
        yield "roles", None, rule, "Lower some workers, or run a second bridge"
    for name, role in config.roles.items():
        yield from broken_role_rules(name, role)
        yield from broken_peer_rules(name, role.peers, config.roles)
        yield from _broken_remote_rules(name, role, config.limits)
    yield from broken_group_rules(config.groups, config.roles)
    if len(config.tenants) > TENANTS_MAX:
        rule = f"a bridge has at most {TENANTS_MAX} tenants with settings of their own"
        yield "tenants", None, rule, "Leave those out that need none"
    for name in config.tenants:
        if not 1 <= len(name.encode()) <= TENANT_NAME_MAX_BYTES or not name.isprintable():
            rule = f"a tenant's name has 1 to {TENANT_NAME_MAX_BYTES} bytes, all printable"
            yield f"tenants.{name}", name, rule, "Choose a shorter, plain name"
    if (others := config.tenants.get(EVERYBODY)) and others.weight != TenantSettings().weight:
        rule = "a weight is a tenant's own; who has none of his own has that of jobs without one"
        yield f"tenants.{EVERYBODY}.weight", others.weight, rule, "Leave it out"
    if len(config.nodes) > NODES_MAX:
        rule = f"a bridge has at most {NODES_MAX} nodes with settings of their own"
        yield "nodes", None, rule, "Leave those out that need none"
    for name in config.nodes:
        if name != EVERYBODY and (problem := node_name_problem(name)):
            mend = 'Write it like app@127.0.0.1; "*" is every node without a table of its own'
            yield f"nodes.{name}", name, problem, mend


def _broken_node_rules(node: NodeConfig) -> Iterator[Broken]:
    if problem := node_name_problem(node.name):
        yield "node.name", node.name, problem, "Write it like bridge@127.0.0.1"
    try:
        ipaddress.ip_address(node.listen)
    except ValueError:
        mend = 'Write the address to listen on; "127.0.0.1" keeps to this host, "0.0.0.0" is all'
        yield "node.listen", node.listen, "it must be an IP address", mend
    if node.epmd == "none" and node.port == 0:
        mend = "Give a port, which the other nodes then know by their own settings"
        yield "node.port", 0, "without epmd nobody finds a port that is taken at random", mend
    for name, place in node.peers.items():
        try:
            Places({name: place})
        except ValueError as error:
            mend = 'Write "name@host" = "host:port", or "*@*" = 9100 for one port on every host'
            yield f"node.peers.{name}", place, str(error), mend
    for name in node.keep_connected:
        if problem := node_name_problem(name):
            yield "node.keep_connected", name, problem, 'List full node names, like "app@10.0.0.5"'
    for key in ("allow", "admin_nodes"):
        for name in getattr(node, key):
            if problem := pattern_problem(name):
                mend = 'List full node names, like "web@10.0.0.5", or globs, like "web*@10.0.0.?"'
                yield f"node.{key}", name, problem, mend


def _broken_tls_rules(config: Config) -> Iterator[Broken]:
    mend = "docs/tls.md shows a whole table and how to make its files"
    if config.tls is not None and config.tls.cert is None:
        yield "tls.cert", None, "a bridge listens, so it needs a certificate", mend
    try:
        config.tls_config()
    except ValueError as error:
        yield "tls", None, str(error), mend


def _broken_limits(limits: LimitSettings) -> Iterator[Broken]:
    for lower, upper in (
        ("outgoing_high_bytes", "outgoing_bytes_max"),
        ("upward_bytes_max", "upward_total_max"),
    ):
        low, high = getattr(limits, lower), getattr(limits, upper)
        if low > high:
            rule = f"it must not be above {upper}, which is {high}"
            yield f"limits.{lower}", low, rule, f"Lower it, or raise {upper}"


def _broken_remote_rules(name: str, role: RoleConfig, limits: LimitSettings) -> Iterator[Broken]:
    """A remote worker's job is a message: above the bound it would cost its node the connection,
    and once more each time that it is tried again.
    """
    # A sixteenth is for envelopes, and for what else is sent there; jobs are sent below the mark.
    bound = limits.outgoing_bytes_max * 15 // 16 - limits.outgoing_high_bytes
    if role.remote.nodes and role.payload_bytes_max > bound:
        rule = f"a payload for a remote worker must fit a connection: at most {max(bound, 0)} bytes"
        mend = "Lower it, or raise limits.outgoing_bytes_max"
        yield f"roles.{name}.payload_bytes_max", role.payload_bytes_max, rule, mend


def _broken_metrics(metrics: MetricsSettings) -> Iterator[Broken]:
    if metrics.listen is None:
        return
    host, _, port = metrics.listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        is_good = (address.version == 6) == bracketed and 0 <= int(port) < 65_536
    except ValueError:
        is_good = False
    if not is_good:
        mend = 'Write it like "127.0.0.1:9568" or "[::1]:9568"; port 0 is any that is free'
        yield "metrics.listen", metrics.listen, "it must be an IP address and a port", mend


def user_is_known(user: str | int) -> bool:
    """A number is one of a container perhaps, whose users have no names here."""
    if isinstance(user, int):
        return 0 <= user < 2**32
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _broken_link_rules(table: str, link: LinkSettings | LaneSettings) -> Iterator[Broken]:
    blocks, rest = divmod(link.result_bytes, link.result_block_bytes)
    for key, value in (("slots", link.slots), ("result_block_bytes", link.result_block_bytes)):
        if value & (value - 1):
            yield f"{table}.{key}", value, "it must be a power of two", f"Take {power_below(value)}"
    if rest or blocks & (blocks - 1):
        rule = f"it must be result_block_bytes ({link.result_block_bytes}) times a power of two"
        mend = f"Take {power_below(max(blocks, 1)) * link.result_block_bytes}"
        yield f"{table}.result_bytes", link.result_bytes, rule, mend
    elif blocks > RESULT_BLOCKS_MAX:
        rule = f"it must be at most {RESULT_BLOCKS_MAX} times result_block_bytes"
        yield (
            f"{table}.result_bytes",
            link.result_bytes,
            rule,
            "Raise result_block_bytes, or lower it",
        )


def _broken_lane_rules(lanes: LaneSettings) -> Iterator[Broken]:
    yield from _broken_link_rules("lanes", lanes)
    if rest := lanes.request_bytes % PAGE_BYTES:
        rule = f"it must be whole pages of {PAGE_BYTES} bytes"
        mend = f"Take {lanes.request_bytes - rest}"
        yield "lanes.request_bytes", lanes.request_bytes, rule, mend
    for name in lanes.allow:
        if problem := pattern_problem(name):
            mend = 'List full node names, like "web@127.0.0.1", or globs, like "web*@127.0.0.1"'
            yield "lanes.allow", name, problem, mend
    for user in lanes.users:
        if not user_is_known(user):
            mend = "Give a user of this host by name, or by number"
            yield "lanes.users", user, "there is no such user here", mend
