"""[groups.<name>]: roles whose workers hang together, and what becomes of them when one fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from bridge.config.section import Milliseconds, Section

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class GroupSettings(Section, frozen=True):
    """[groups.<name>]: a supervisor over roles, in their starting order."""

    roles: Annotated[tuple[str, ...], Meta(min_length=1)]
    strategy: Strategy = "one_for_one"
    max_restarts: Annotated[int, Meta(ge=0, le=10_000)] = 3
    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    backoff_min_ms: Milliseconds = 50
    backoff_max_ms: Milliseconds = 10_000


def broken_group_rules(
    groups: Mapping[str, GroupSettings], roles: Mapping[str, Any]
) -> Iterator[tuple[str, Any, str, str]]:
    """Key, value, rule and mend of each rule that no type can say."""
    group_of: dict[str, str] = {}
    for name, group in groups.items():
        key = f"groups.{name}"
        for role in group.roles:
            if role not in roles:
                rule = f"there is no role {role}"
                yield f"{key}.roles", role, rule, f"The roles are: {', '.join(roles)}"
            if role in group_of:
                rule = f"the role {role} is in the group {group_of[role]} already"
                yield f"{key}.roles", role, rule, "A role is in one group, once"
            group_of[role] = name
        if group.backoff_min_ms > group.backoff_max_ms:
            rule = f"it must not be above backoff_max_ms, which is {group.backoff_max_ms}"
            mend = "Lower it, or raise backoff_max_ms"
            yield f"{key}.backoff_min_ms", group.backoff_min_ms, rule, mend
