"""The tables of the file but the roles: each key, its type, its bounds and its default."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from bridge.config.admission import Depth, RateSettings
from bridge.config.section import GIB, KIB, MIB, Milliseconds, Section
from bridge.dist.tls import VERSIONS, Verify, Version


class NodeConfig(Section, frozen=True):
    """[node]: who the bridge is, where it listens and whom it lets in."""

    name: str = "bridge@127.0.0.1"
    listen: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    epmd: Literal["start", "own", "none"] = "start"
    peers: dict[str, str | int] = field(default_factory=dict)
    keep_connected: tuple[str, ...] = ()
    cookie_file: str | None = None
    allow: tuple[str, ...] = ()
    admin_nodes: tuple[str, ...] = ()
    atom_cache: bool = False
    net_ticktime_s: Annotated[int, Meta(ge=4, le=3_600)] = 60
    arrange_cpus: bool = True
    drain_ms: Milliseconds = 10_000


class TlsSettings(Section, frozen=True):
    """[tls]: every connection of the node is under TLS; without the table none is."""

    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    verify: Verify = "mutual"
    versions: tuple[Version, ...] = VERSIONS


class LimitSettings(Section, frozen=True):
    """[limits]: how much may wait in memory for one connection, and how long it may stand still."""

    signal_bytes_max: Annotated[int, Meta(ge=MIB, le=2**31 - 1)] = 128 * MIB
    outgoing_bytes_max: Annotated[int, Meta(ge=MIB, le=16 * GIB)] = 128 * MIB
    outgoing_high_bytes: Annotated[int, Meta(ge=64 * KIB, le=GIB)] = MIB
    upward_bytes_max: Annotated[int, Meta(ge=MIB, le=16 * GIB)] = 64 * MIB
    upward_total_max: Annotated[int, Meta(ge=MIB, le=64 * GIB)] = 256 * MIB
    arrival_ms: Milliseconds = 30_000
    kept_bytes_max: Annotated[int, Meta(ge=0, le=16 * GIB)] = 64 * MIB


class TenantSettings(Section, frozen=True):
    """[tenants.<name>]: what jobs of that `tenant` are given beside those of others."""

    weight: Annotated[int, Meta(ge=1, le=1_000)] = 10
    depth_max: Depth = 0
    rate: RateSettings = field(default_factory=RateSettings)


class MetricsSettings(Section, frozen=True):
    """[metrics]: figures for Prometheus."""

    listen: str | None = None


class LinkSettings(Section, frozen=True):
    """[link]: the shared memory between the bridge and each worker."""

    slots: Annotated[int, Meta(ge=2, le=65_536)] = 1_024
    result_bytes: Annotated[int, Meta(ge=64 * KIB, le=16 * GIB)] = 64 * MIB
    result_block_bytes: Annotated[int, Meta(ge=4 * KIB, le=16 * MIB)] = 4 * KIB
    crc: Literal["off", "envelope", "payload"] = "payload"


class LaneSettings(Section, frozen=True):
    """[lanes]: memory shared with a BEAM of this host, and who gets some."""

    allow: tuple[str, ...] = ()
    users: tuple[str | int, ...] = ()
    lanes_max: Annotated[int, Meta(ge=0, le=256)] = 16
    lanes_per_node_max: Annotated[int, Meta(ge=1, le=256)] = 8
    slots: Annotated[int, Meta(ge=2, le=65_536)] = 1_024
    request_bytes: Annotated[int, Meta(ge=64 * KIB, le=4 * GIB)] = 8 * MIB
    result_bytes: Annotated[int, Meta(ge=64 * KIB, le=16 * GIB)] = 64 * MIB
    result_block_bytes: Annotated[int, Meta(ge=4 * KIB, le=16 * MIB)] = 4 * KIB


class CheckpointStoreSettings(Section, frozen=True):
    """[checkpoints]: where the state of workers is kept. Without a file: in memory."""

    file: str | None = None
    key_file: str | None = None
    bytes_max: Annotated[int, Meta(ge=MIB, le=1_024 * GIB)] = GIB
