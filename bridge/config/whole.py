"""The whole file as one record, and what follows from where it lies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from bridge.config.admission import AllowanceSettings
from bridge.config.errors import ConfigError
from bridge.config.groups import GroupSettings
from bridge.config.role import RoleConfig
from bridge.config.section import Section
from bridge.config.sections import (
    CheckpointStoreSettings,
    LaneSettings,
    LimitSettings,
    LinkSettings,
    MetricsSettings,
    NodeConfig,
    TenantSettings,
    TlsSettings,
)
from bridge.dist.tls import TlsConfig


class Config(Section, frozen=True):
    """The whole file. `file` is where it was read from: its relative paths start in that folder."""

    file: Path
    node: NodeConfig
    limits: LimitSettings
    link: LinkSettings
    roles: dict[str, RoleConfig]
    lanes: LaneSettings = field(default_factory=LaneSettings)
    groups: dict[str, GroupSettings] = field(default_factory=dict)
    tenants: dict[str, TenantSettings] = field(default_factory=dict)
    nodes: dict[str, AllowanceSettings] = field(default_factory=dict)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    checkpoints: CheckpointStoreSettings = field(default_factory=CheckpointStoreSettings)
    tls: TlsSettings | None = None

    def role(self, name: str) -> RoleConfig:
        """The role with the places of its sandbox made absolute."""
        role = self.roles[name]
        sandbox = msgspec.structs.replace(
            role.sandbox,
            read=self._places(role.sandbox.read),
            write=self._places(role.sandbox.write),
            hide=self._places(role.sandbox.hide) or (),
        )
        return msgspec.structs.replace(role, sandbox=sandbox)

    def _places(self, paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if paths is None:
            return None
        return tuple(str((self.file.parent / Path(path).expanduser()).resolve()) for path in paths)

    def role_cwd(self, name: str) -> Path:
        """The folder in which the role's workers start: the file's own when the role names none."""
        return (self.file.parent / Path(self.roles[name].cwd or ".").expanduser()).resolve()

    def role_argv(self, name: str) -> tuple[str, ...]:
        """The role's command with its program found: relative to the file's folder, or on PATH.

        Raises ConfigError when there is no such program, or when it cannot be executed.
        """
        if not self.roles[name].command:
            return ()  # all of its workers are remote
        program, *arguments = self.roles[name].command
        key = f"roles.{name}.command"
        if "/" not in program:
            found = shutil.which(program)
            if found is None:
                raise self._error(
                    key,
                    program,
                    "no such program on PATH",
                    "Install it, or give a path with a slash",
                )
            return (found, *arguments)
        # By the name it is given: a link may mean something, like the python of a venv.
        path = Path(os.path.abspath(self.file.parent / Path(program).expanduser()))
        if not path.is_file():
            hint = "Run `make workers` to build it" if "build/" in program else "Correct the path"
            raise self._error(key, program, f"{path} does not exist", hint)
        if shutil.which(path) is None:
            raise self._error(
                key, program, f"{path} is not executable", f"Mend it with: chmod +x {path}"
            )
        return (str(path), *arguments)

    def cookie_path(self) -> Path | None:
        """The cookie file that [node] names, or None when it names none."""
        if self.node.cookie_file is None:
            return None
        return self.file.parent / Path(self.node.cookie_file).expanduser()

    def tls_config(self) -> TlsConfig | None:
        """[tls] with whole paths, or None without it. Raises ValueError for what cannot work."""
        if self.tls is None:
            return None

        def path(text: str | None) -> Path | None:
            return None if text is None else self.file.parent / Path(text).expanduser()

        cert, key, ca = path(self.tls.cert), path(self.tls.key), path(self.tls.ca)
        return TlsConfig(cert, key, ca, self.tls.verify, self.tls.versions)

    def checkpoint_paths(self) -> tuple[Path | None, Path | None]:
        """The file of checkpoints and that of its key, where [checkpoints] names them."""
        store = self.checkpoints

        def path(text: str | None) -> Path | None:
            return None if text is None else self.file.parent / Path(text).expanduser()

        return path(store.file), path(store.key_file)

    def secrets(self) -> list[Path]:
        """Files that no worker may read: the cookie's, the keys', and other workers' state."""
        tls = self.tls_config()
        key = (tls.key or tls.cert) if tls else None
        state, state_key = self.checkpoint_paths()
        journals = [Path(f"{state}{end}") for end in ("", "-wal", "-shm")] if state else []
        files = (self.cookie_path(), key, state_key, *journals)
        return [Path(file) for file in files if file is not None]

    def _error(self, key: str, value: Any, rule: str, mend: str) -> ConfigError:
        return ConfigError(file=self.file, key=key, value=value, rule=rule, mend=mend)
