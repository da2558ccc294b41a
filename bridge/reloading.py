"""Other settings while the bridge runs: taken over as a whole, or refused with nothing changed.

A change comes from the file (`reload`, SIGHUP) or as one key (`configure`). Everything that can
fail is tried first: what a running bridge cannot take, programs that are not there, certificates
that cannot be used, memory for new roles. What follows cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from bridge.config import (
    Change,
    Config,
    ConfigError,
    ConfigErrors,
    RoleConfig,
    changes,
    load,
    refused,
    with_value,
)
from bridge.dist.finding import Places
from bridge.dist.tls import TlsError
from bridge.fabric.relay import LinkConfig, Relay
from bridge.limits import allowances, relay_limits, role_limits, tenant_limits
from bridge.node import Node
from bridge.node.cluster.keeping import Kept
from bridge.ops import certificates, descriptors
from bridge.workers.handshake_driver import RolePlan
from bridge.workers.port_supervisor import PortSupervisor
from bridge.workers.upgrade import Stage, Upgrade

if TYPE_CHECKING:
    from bridge.fabric.tls import Context, Tls

log = structlog.get_logger("ringbridge")


@dataclass
class Current:
    """The settings of now."""

    config: Config


class Reloading:
    """What of the bridge follows its settings. A method that raises ConfigError has changed
    nothing.
    """

    def __init__(
        self,
        current: Current,
        *,
        relay: Relay,
        node: Node,
        supervisor: PortSupervisor,
        places: Places,
        tls: Tls | None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.upgrades: dict[str, Upgrade] = {}  # the last one of each role
        self._current = current
        self._relay = relay
        self._node = node
        self._supervisor = supervisor
        self._places = places
        self._tls = tls
        self._kept: Kept | None = None
        self._changed = changed  # told after each change

    def keep_connected(self) -> None:
        """Begin to dial the nodes that [node] keep_connected names."""
        if self._kept is not None:
            self._kept.stop()
        names = set(self._current.config.node.keep_connected) - {self._node.name}
        self._kept = self._node.keep_connected(names)

    def reload(self) -> list[Change]:
        """Read the file again, and the certificates. Returns what has changed."""
        changed = self._take_over(load(self._current.config.file), certificates_too=True)
        log.info("settings reloaded", changes=[change.key for change in changed])
        return changed

    def configure(self, key: str, value: Any) -> list[Change]:
        """Change one key, "roles.echo.depth_max"; None is its default. The file stays as it is: the
        next reload goes by that.
        """
        changed = self._take_over(with_value(self._current.config, key, value))
        for change in changed:
            log.info("setting changed", key=change.key, was=change.was, now=change.now)
        return changed

    def upgrade(self, role: str, command: Sequence[str] | None = None) -> Upgrade:
        """Begin to replace the workers of a role, by such of `command` if it is given."""
        config = self._current.config
        if command is not None:
            config = with_value(config, f"roles.{role}.command", list(command))
        if (plan := self._supervisor.role(role)) is None:
            names = ", ".join(plan.name for plan in self._supervisor.plans)
            raise self.error(f"roles.{role}", "there is no such role", f"The roles are: {names}")
        self._refuse_busy([role])
        plan = self._plan(config, role, plan.id)
        self._current.config = config
        return self._begin_upgrade(plan)

    # ---- all or nothing

    def _take_over(self, new: Config, *, certificates_too: bool = False) -> list[Change]:
        old = self._current.config
        changed = changes(old, new)
        if errors := refused(old, new):
            raise ConfigErrors(errors)
        self._refuse_busy(_other_roles(old, new))
        context = self._context(old, new, certificates_too)
        descriptors.raise_limit(new)
        plans = self._changed_plans(old, new)
        added = self._add_roles(new, [name for name in new.roles if name not in old.roles])
        self._configure_roles(old, new, plans, added)
        # From here on nothing fails.
        self._current.config = new
        if context is not None and self._tls is not None:
            self._tls.use(*context)
        self._change_node(old, new)
        self._relay.set_tenants(tenant_limits(new))
        self._relay.set_allowances(allowances(new))
        for name in old.roles.keys() - new.roles.keys():
            self._remove_role(name)
        for plan in plans:
            before = self._supervisor.plan(plan.id)
            self._supervisor.change_role(plan)
            if not plan.starts_as(before):
                self._begin_upgrade(plan)
        self._supervisor.together.set_groups(new.groups)
        for plan in added:
            self._supervisor.add_role(plan)
        self._changed()
        return changed

    def _context(
        self, old: Config, new: Config, certificates_too: bool
    ) -> tuple[Any, Context] | None:
        """The new settings of TLS with their certificates, or None to leave what is."""
        settings = new.tls_config()
        if self._tls is None or settings is None:
            return None
        if settings == old.tls_config() and not certificates_too:
            return None
        try:
            return settings, self._tls.prepare(settings)
        except TlsError as error:
            raise certificates.unusable(new, error) from error

    def _changed_plans(self, old: Config, new: Config) -> list[RolePlan]:
        """A plan for each role that was there and is another now. Its program must be there."""
        return [
            self._plan(new, name, plan.id)
            for name in _other_roles(old, new)
            if name in new.roles and (plan := self._supervisor.role(name)) is not None
        ]

    def _plan(self, config: Config, role: str, number: int) -> RolePlan:
        argv, cwd = config.role_argv(role), str(config.role_cwd(role))
        return RolePlan(number, role, argv, cwd, config.role(role))

    def _add_roles(self, config: Config, names: list[str]) -> list[RolePlan]:
        """Give the relay new roles; their workers start when all is sure."""
        plans = [self._plan(config, name, -1) for name in names]
        made: list[RolePlan] = []
        for plan in plans:
            try:
                number = self._relay.add_role(role_limits(config, plan.name))
            except OSError as error:
                for other in made:
                    self._relay.remove_role(other.id)
                key, rule = f"roles.{plan.name}", f"it cannot be made: {error.strerror}"
                raise self.error(key, rule, "Lower its pool_bytes, or make room") from error
            made.append(RolePlan(number, plan.name, plan.argv, plan.cwd, plan.config))
        return made

    def _configure_roles(
        self, old: Config, new: Config, plans: list[RolePlan], added: list[RolePlan]
    ) -> None:
        """Give roles their new numbers. The relay refuses what no rule of ours has caught: then
        those before have their old ones again, and roles that were added are gone.
        """
        for at, plan in enumerate(plans):
            try:
                self._relay.configure_role(plan.id, role_limits(new, plan.name))
            except OSError as error:
                for before in plans[:at]:
                    self._relay.configure_role(before.id, role_limits(old, before.name))
                for other in added:
                    self._relay.remove_role(other.id)
                rule = f"the relay refuses these numbers: {error.strerror}"
                raise self.error(f"roles.{plan.name}", rule, "Change them one by one") from error

    def _refuse_busy(self, roles: Sequence[str]) -> None:
        for name in roles:
            upgrade = self.upgrades.get(name)
            if upgrade is not None and upgrade.is_under_way:
                rule = f"it is being upgraded ({upgrade.replaced} replaced)"
                raise self.error(f"roles.{name}", rule, "Try again when that is over")
            if self._supervisor.is_leaving(name):
                rule = "its workers of before still finish what they have"
                raise self.error(f"roles.{name}", rule, "Try again when they have ended")

    # ---- what follows

    def _change_node(self, old: Config, new: Config) -> None:
        self._relay.configure(relay_limits(new))
        self._places.replace(new.node.peers)
        if new.node.keep_connected != old.node.keep_connected:
            self.keep_connected()
        if new.node.drain_ms != old.node.drain_ms:
            self._supervisor.set_drain(new.node.drain_ms / 1000)
        self._supervisor.driver.link = LinkConfig(**msgspec.structs.asdict(new.link))

    def _remove_role(self, name: str) -> None:
        plan = self._supervisor.role(name)
        self.upgrades.pop(name, None)
        if plan is not None:
            self._supervisor.remove_role(plan.id)

    def _begin_upgrade(self, plan: RolePlan) -> Upgrade:
        before = self._supervisor.plan(plan.id).config
        upgrade = self.upgrades[plan.name] = Upgrade(self._supervisor, plan)

        async def story() -> None:
            await upgrade.run()
            if upgrade.stage is Stage.ROLLED_BACK:
                self._go_back(plan.name, before)

        self._supervisor.begin(story)
        return upgrade

    def _go_back(self, name: str, before: RoleConfig) -> None:
        """The settings say again what runs, so that the next reload tries what the file says."""
        config = self._current.config
        role = msgspec.structs.replace(
            config.roles[name], command=before.command, env=before.env, cwd=before.cwd
        )
        roles: Mapping[str, RoleConfig] = {**config.roles, name: role}
        self._current.config = msgspec.structs.replace(config, roles=roles)

    def error(self, key: str, rule: str, mend: str) -> ConfigError:
        return ConfigError(file=self._current.config.file, key=key, rule=rule, mend=mend)


def _other_roles(old: Config, new: Config) -> list[str]:
    """The roles that came, went or changed."""
    names = dict.fromkeys((*old.roles, *new.roles))
    return [name for name in names if old.roles.get(name) != new.roles.get(name)]
