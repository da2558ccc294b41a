"""ringbridge.toml: the settings as typed records, and errors that say how to mend the file.

Every key is described once, here, by its field; docs/configuration.md says the same in words and a
test holds the two together. A wrong file raises ConfigError, which names file, key, value, rule and
mend.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import shutil
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.dist.cookie import COOKIE_VARIABLE
from bridge.dist.finding import Places
from bridge.dist.names import node_name_problem, pattern_problem
from bridge.dist.tls import VERSIONS, TlsConfig, Verify, Version

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE_BYTES = 4 * KIB
ROLES_MAX = 64  # of the relay, as WORKERS_MAX
WORKERS_MAX = 4_096
RESULT_BLOCKS_MAX = 1 << 20  # of a link: the ring that gives them back has a slot for each
ROLE_NAME_MAX_BYTES = 63  # a link's header holds it in 64 bytes, NUL-terminated
TABLES = ("node", "limits", "tls", "link", "roles")
RESERVED_PREFIX = "RINGBRIDGE_"  # of environment variables: the bridge's own

Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
Restart = Literal["permanent", "transient", "temporary"]


class ConfigError(Exception):
    """One rule that the configuration breaks. str() of it is ready to be shown to the user."""

    def __init__(
        self, *, file: Path | str, key: str, rule: str, mend: str, value: Any = None
    ) -> None:
        self.file, self.key, self.value, self.rule, self.mend = str(file), key, value, rule, mend
        shown = "" if value is None else f" = {_shown(value)}"
        super().__init__(f"{file}: {key}{shown}: {rule}. {mend}")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; a key that it does not know is an error, never ignored."""


class NodeConfig(_Section, frozen=True):
    """[node]: who the bridge is, where it listens and whom it lets in."""

    name: str = "bridge@127.0.0.1"
    listen: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    epmd: Literal["start", "own", "none"] = "start"
    peers: dict[str, str | int] = {}
    keep_connected: tuple[str, ...] = ()
    cookie_file: str | None = None
    allow: tuple[str, ...] = ()
    admin_nodes: tuple[str, ...] = ()
    atom_cache: bool = False
    net_ticktime_s: Annotated[int, Meta(ge=4, le=3_600)] = 60
    drain_ms: Milliseconds = 10_000


class TlsSettings(_Section, frozen=True):
    """[tls]: every connection of the node is under TLS; without the table none is."""

    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    verify: Verify = "mutual"
    versions: tuple[Version, ...] = VERSIONS


class LimitSettings(_Section, frozen=True):
    """[limits]: how much may wait in memory for one connection, and how long it may stand still."""

    signal_bytes_max: Annotated[int, Meta(ge=MIB, le=2**31 - 1)] = 128 * MIB
    outgoing_bytes_max: Annotated[int, Meta(ge=MIB, le=16 * GIB)] = 128 * MIB
    outgoing_high_bytes: Annotated[int, Meta(ge=64 * KIB, le=GIB)] = MIB
    upward_bytes_max: Annotated[int, Meta(ge=MIB, le=16 * GIB)] = 64 * MIB
    upward_total_max: Annotated[int, Meta(ge=MIB, le=64 * GIB)] = 256 * MIB
    arrival_ms: Milliseconds = 30_000


class LinkSettings(_Section, frozen=True):
    """[link]: the shared memory between the bridge and each worker."""

    slots: Annotated[int, Meta(ge=2, le=65_536)] = 1_024
    result_bytes: Annotated[int, Meta(ge=64 * KIB, le=16 * GIB)] = 64 * MIB
    result_block_bytes: Annotated[int, Meta(ge=4 * KIB, le=16 * MIB)] = 4 * KIB
    crc: Literal["off", "envelope", "payload"] = "payload"


class RoleConfig(_Section, frozen=True):
    """[roles.<name>]: a kind of work, the command that does it, and its bounds."""

    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    workers: Annotated[int, Meta(ge=1, le=1_024)] = 1
    env: dict[str, str] = {}
    cwd: str | None = None

    payload_bytes_max: Annotated[int, Meta(ge=64, le=2 * GIB)] = 64 * MIB
    pool_bytes: Annotated[int, Meta(ge=64 * KIB, le=64 * GIB)] = 256 * MIB
    depth_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    timeout_default_ms: Milliseconds = 60_000
    timeout_max_ms: Milliseconds = 3_600_000
    credit_us: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    cancel_term_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000
    cancel_kill_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000

    start_ms: Milliseconds = 10_000
    grace_ms: Annotated[int, Meta(ge=1, le=600_000)] = 2_000
    restart: Restart = "permanent"
    max_restarts: Annotated[int, Meta(ge=0, le=10_000)] = 10
    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    backoff_min_ms: Milliseconds = 50
    backoff_max_ms: Milliseconds = 10_000


class Config(_Section, frozen=True):
    """The whole file. `file` is where it was read from: its relative paths start in that folder."""

    file: Path
    node: NodeConfig
    limits: LimitSettings
    link: LinkSettings
    roles: dict[str, RoleConfig]
    tls: TlsSettings | None = None

    def role_cwd(self, name: str) -> Path:
        """The folder in which the role's workers start: the file's own when the role names none."""
        return (self.file.parent / Path(self.roles[name].cwd or ".").expanduser()).resolve()

    def role_argv(self, name: str) -> tuple[str, ...]:
        """The role's command with its program found: relative to the file's folder, or on PATH.

        Raises ConfigError when there is no such program, or when it cannot be executed.
        """
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
        path = (self.file.parent / Path(program).expanduser()).resolve()
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

    def secrets(self) -> list[Path]:
        """Files that no worker may read: the cookie's and the key's."""
        tls = self.tls_config()
        key = (tls.key or tls.cert) if tls else None
        return [Path(file) for file in (self.cookie_path(), key) if file is not None]

    def _error(self, key: str, value: Any, rule: str, mend: str) -> ConfigError:
        return ConfigError(file=self.file, key=key, value=value, rule=rule, mend=mend)


def load(file: str | Path) -> Config:
    """Read and check `file`. Raises ConfigError for the first rule that it breaks."""
    path = Path(file).expanduser()
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            file=path,
            key="(file)",
            rule=f"it cannot be read: {error.strerror}",
            mend="Give the path of a configuration by --config",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            file=path, key="(file)", rule="TOML is UTF-8, this file is not", mend="Save it as UTF-8"
        ) from error
    return parse(text, path)


def parse(text: str, file: Path) -> Config:
    """Check the text of a configuration that lies at `file`. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            file=file, key="(syntax)", rule=f"not TOML: {error}", mend="Correct that line"
        ) from error

    def section(type_: type[_Section], key: str, table: Any) -> Any:
        return _convert(type_, table, key, file)

    for key in raw:
        if key not in TABLES:
            raise _unknown_key(file, key, raw[key], TABLES)
    roles = raw.get("roles", {})
    if not isinstance(roles, dict):
        raise ConfigError(
            file=file,
            key="roles",
            value=roles,
            rule="roles is a table of tables",
            mend='Write each role as [roles.<name>] with a command, like command = ["my-worker"]',
        )
    config = Config(
        file=file.absolute(),
        node=section(NodeConfig, "node", raw.get("node", {})),
        limits=section(LimitSettings, "limits", raw.get("limits", {})),
        link=section(LinkSettings, "link", raw.get("link", {})),
        roles={name: section(RoleConfig, f"roles.{name}", table) for name, table in roles.items()},
        tls=section(TlsSettings, "tls", raw["tls"]) if "tls" in raw else None,
    )
    for key, value, rule, mend in _broken_rules(config):
        raise ConfigError(file=file, key=key, value=value, rule=rule, mend=mend)
    return config


_Broken = tuple[str, Any, str, str]  # key, value, rule, mend


def _broken_rules(config: Config) -> Iterator[_Broken]:
    """The rules that no type can say, in the order of the file."""
    yield from _broken_node_rules(config.node)
    yield from _broken_tls_rules(config)
    yield from _broken_limits(config.limits)
    yield from _broken_link_rules(config.link)
    if not config.roles:
        mend = "Add a table [roles.<name>] with a command, like the project's own ringbridge.toml"
        yield "roles", None, "there is no role, so no job could ever run", mend
    if len(config.roles) > ROLES_MAX:
        yield "roles", None, f"a bridge has at most {ROLES_MAX} roles", "Run a second bridge"
    workers = sum(role.workers for role in config.roles.values())
    if workers > WORKERS_MAX // 2:  # the other half of the relay's places is for their successors
        rule = f"a bridge has at most {WORKERS_MAX // 2} workers, these are {workers}"
        yield "roles", None, rule, "Lower some workers, or run a second bridge"
    for name, role in config.roles.items():
        yield from _broken_role_rules(name, role)


def _broken_node_rules(node: NodeConfig) -> Iterator[_Broken]:
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


def _broken_tls_rules(config: Config) -> Iterator[_Broken]:
    mend = "docs/tls.md shows a whole table and how to make its files"
    if config.tls is not None and config.tls.cert is None:
        yield "tls.cert", None, "a bridge listens, so it needs a certificate", mend
    try:
        config.tls_config()
    except ValueError as error:
        yield "tls", None, str(error), mend


def _broken_limits(limits: LimitSettings) -> Iterator[_Broken]:
    for lower, upper in (
        ("outgoing_high_bytes", "outgoing_bytes_max"),
        ("upward_bytes_max", "upward_total_max"),
    ):
        low, high = getattr(limits, lower), getattr(limits, upper)
        if low > high:
            rule = f"it must not be above {upper}, which is {high}"
            yield f"limits.{lower}", low, rule, f"Lower it, or raise {upper}"


def _broken_link_rules(link: LinkSettings) -> Iterator[_Broken]:
    blocks, rest = divmod(link.result_bytes, link.result_block_bytes)
    for key, value in (("slots", link.slots), ("result_block_bytes", link.result_block_bytes)):
        if value & (value - 1):
            yield f"link.{key}", value, "it must be a power of two", f"Take {_power_below(value)}"
    if rest or blocks & (blocks - 1):
        rule = f"it must be result_block_bytes ({link.result_block_bytes}) times a power of two"
        mend = f"Take {_power_below(max(blocks, 1)) * link.result_block_bytes}"
        yield "link.result_bytes", link.result_bytes, rule, mend
    elif blocks > RESULT_BLOCKS_MAX:
        rule = f"it must be at most {RESULT_BLOCKS_MAX} times result_block_bytes"
        yield "link.result_bytes", link.result_bytes, rule, "Raise result_block_bytes, or lower it"


def _broken_role_rules(name: str, role: RoleConfig) -> Iterator[_Broken]:
    key = f"roles.{name}"
    if not 1 <= len(name.encode()) <= ROLE_NAME_MAX_BYTES or not name.isprintable():
        rule = f"a role's name has 1 to {ROLE_NAME_MAX_BYTES} bytes, all printable"
        yield key, name, rule, "Choose a shorter, plain name"
    if not role.command[0]:
        yield f"{key}.command", role.command, "its first element is the program", "Name the program"
    for variable, value in role.env.items():
        if variable.startswith(RESERVED_PREFIX):
            rule = f"{RESERVED_PREFIX}* is set by the bridge itself"
            if variable == COOKIE_VARIABLE:
                rule = "no worker is ever given the cookie: who holds it owns the cluster"
            yield f"{key}.env", variable, rule, "Take it out, or use another name"
        elif "\0" in value or "=" in variable or not variable or "\0" in variable:
            rule = "a variable's name has no = and neither name nor value a NUL character"
            yield f"{key}.env", variable, rule, "Correct it"
    if role.pool_bytes % PAGE_BYTES:
        mend = f"Take {role.pool_bytes // PAGE_BYTES * PAGE_BYTES}"
        yield f"{key}.pool_bytes", role.pool_bytes, f"it must be a multiple of {PAGE_BYTES}", mend
    for lower, upper in (
        ("payload_bytes_max", "pool_bytes"),
        ("timeout_default_ms", "timeout_max_ms"),
        ("backoff_min_ms", "backoff_max_ms"),
    ):
        low, high = getattr(role, lower), getattr(role, upper)
        if low > high:
            rule = f"it must not be above {upper}, which is {high}"
            yield f"{key}.{lower}", low, rule, f"Lower it, or raise {upper}"


def _power_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)


# ---- msgspec's errors in our words

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_WORDS = {
    "int": "a whole number",
    "str": "a text in quotes",
    "array": 'a list, like ["program", "argument"]',
    "object": "a table",
    "bool": "true or false",
    "float": "a number with a point",
    "null": "nothing",
}


def _convert(type_: type[_Section], table: Any, key: str, file: Path) -> _Section:
    """`table` as a record of `type_`. Raises ConfigError."""
    try:
        return msgspec.convert(table, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        fields = type_.__struct_fields__
        if match := _UNKNOWN.search(text):
            name = match[1]
            raise _unknown_key(file, f"{key}.{name}", table.get(name), fields) from error
        if match := _MISSING.search(text):
            rule = f"the key {match[1]} is missing"
            mend = f'Add it below [{key}], for example {match[1]} = ["build/bin/rb-echo"]'
            raise ConfigError(file=file, key=f"{key}.{match[1]}", rule=rule, mend=mend) from error
        at = match[1] if (match := _AT.search(text)) else ""
        field = re.split(r"[.\[]", at)[0]
        value = table.get(field) if isinstance(table, Mapping) else table
        raise ConfigError(
            file=file,
            key=f"{key}.{at}".rstrip("."),
            value=value,
            rule=_rule(type_, field, _AT.sub("", text)),
            mend=_mend(type_, field) if field else f"Write [{key}] and its keys below it",
        ) from error


def _rule(type_: type[_Section], field: str, text: str) -> str:
    hint = typing.get_type_hints(type_).get(field)
    if text.startswith("Invalid enum value"):
        while typing.get_origin(hint) is not Literal:  # in a list, perhaps
            hint = typing.get_args(hint)[0]
        return "it must be one of: " + ", ".join(map(_shown, typing.get_args(hint)))
    return _in_words(text)


def _in_words(text: str) -> str:
    """msgspec's sentence ("Expected `int` >= 1") in the user's words."""

    def word(match: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(part.strip(), part.strip()) for part in match[1].split("|"))

    text = re.sub(r"`(.*?)`", word, text).replace(">=", "of at least").replace("<=", "of at most")
    text = text.replace("of length of at least 1", "with at least one element")
    return text[:1].lower() + text[1:]


def _mend(type_: type[_Section], field: str) -> str:
    default = {f.name: f.default for f in msgspec.structs.fields(type_)}.get(
        field, msgspec.NODEFAULT
    )
    if default is msgspec.NODEFAULT or default is None:
        return "docs/configuration.md describes it"
    return f"The default is {_shown(default)}; docs/configuration.md describes it"


def _unknown_key(file: Path, key: str, value: Any, known: tuple[str, ...]) -> ConfigError:
    name = key.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return ConfigError(
        file=file,
        key=key,
        value=value,
        rule="there is no such key",
        mend=f"{guess}The keys here are: {', '.join(known)}",
    )


def _shown(value: Any) -> str:
    """A value as TOML would spell it, shortened; a table is not repeated."""
    if isinstance(value, Mapping):
        return "{...}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(_shown(item) for item in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
