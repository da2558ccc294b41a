"""The settings in the words of the relay: records of bridge.fabric.limits made from a Config."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from bridge.config import Config
from bridge.config.ops import compile_ops
from bridge.fabric.limits import AccountKind, AllowanceLimits, RelayLimits, RoleLimits, TenantLimits

_Record = TypeVar("_Record")
_MISSING = object()


def relay_limits(config: Config) -> RelayLimits:
    """A tick after a quarter of net_ticktime, a silent peer gone after 5/4 of it: as in OTP."""
    quarter_ms = config.node.net_ticktime_s * 250
    return RelayLimits(
        tick_ms=quarter_ms,
        silence_ms=5 * quarter_ms,
        signal_bytes_max=config.limits.signal_bytes_max,
        outgoing_bytes_max=config.limits.outgoing_bytes_max,
        outgoing_high_bytes=config.limits.outgoing_high_bytes,
        outgoing_low_bytes=config.limits.outgoing_high_bytes // 2,
        upward_bytes_max=config.limits.upward_bytes_max,
        upward_total_max=config.limits.upward_total_max,
        arrival_ms=config.limits.arrival_ms,
        kept_bytes_max=config.limits.kept_bytes_max,
        arrange_cpus=config.node.arrange_cpus,
    )


def role_limits(config: Config, role: str) -> RoleLimits:
    settings = config.roles[role]
    return _from_settings(RoleLimits, settings, name=role, ops=compile_ops(settings.ops))


def tenant_limits(config: Config) -> dict[str, TenantLimits]:
    return {name: _from_settings(TenantLimits, given) for name, given in config.tenants.items()}


def allowances(config: Config) -> dict[tuple[AccountKind, str], AllowanceLimits]:
    """By kind and name; the name "*" is everybody who has none of his own."""
    sections: dict[AccountKind, Mapping[str, Any]] = {
        AccountKind.NODE: config.nodes,
        AccountKind.TENANT: config.tenants,
    }
    return {
        (kind, name): _from_settings(AllowanceLimits, given)
        for kind, section in sections.items()
        for name, given in section.items()
    }


def _from_settings(type_: type[_Record], *sections: Any, **given: Any) -> _Record:
    """A record whose fields are keys of the same name in the first of `sections` that has one.

    A record in it, such as `admission`, is made from the sub-table of its name and, for keys that
    are not there, from the tables around it: `depth_max` stands in [roles.<name>] itself.
    Raises AttributeError for a field that no key gives.
    """
    hints = typing.get_type_hints(type_)
    for field in fields(type_):  # type: ignore[arg-type]
        if field.name in given:
            continue
        value = next(
            (v for s in sections if (v := getattr(s, field.name, _MISSING)) is not _MISSING),
            _MISSING,
        )
        if is_dataclass(hints[field.name]):
            inner = sections if value is _MISSING else (value, *sections)
            given[field.name] = _from_settings(hints[field.name], *inner)
        elif value is _MISSING:
            raise AttributeError(f"no setting gives {type_.__name__}.{field.name}")
        else:
            given[field.name] = value
    return type_(**given)
