"""ringbridge.toml: what is read, and what is said about a file that breaks a rule."""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from bridge import config as settings
from bridge.config import (
    Config,
    ConfigError,
    LinkSettings,
    NodeConfig,
    RoleConfig,
)
from bridge.config.section import Section
from bridge.config.words import convert, sub_section

ROOT = Path(__file__).parents[2]
ROLE = '[roles.echo]\ncommand = ["./echo"]\n'


def read(text: str, folder: Path = Path("/etc/ringbridge")) -> Config:
    return settings.parse(text, folder / "ringbridge.toml")


def test_the_default_file_has_these_roles_and_listens_on_loopback_only() -> None:
    config = settings.load(ROOT / "ringbridge.toml")
    assert list(config.roles) == ["echo", "sleep", "simulation", "worldgen"]
    assert config.node.listen == "127.0.0.1"
    assert config.node.allow == ()


def test_a_file_with_one_role_needs_nothing_else() -> None:
    config = read(ROLE)
    assert config.node == NodeConfig()
    assert config.link == LinkSettings()
    assert config.roles == {"echo": RoleConfig(command=("./echo",))}


BROKEN = [
    # text, key, value, a part of the rule, a part of the mend
    ("[rules]\n" + ROLE, "rules", {}, "no such key", "Did you mean roles?"),
    ("[node]\nnmae = 1\n" + ROLE, "node.nmae", 1, "no such key", "Did you mean name?"),
    (ROLE + "wokers = 2", "roles.echo.wokers", 2, "no such key", "Did you mean workers?"),
    (ROLE + "workers = 0", "roles.echo.workers", 0, "at least 1", "default is 1"),
    (ROLE + 'workers = "2"', "roles.echo.workers", "2", "a whole number", "default is 1"),
    (ROLE + 'restart = "always"', "roles.echo.restart", "always", '"transient"', "permanent"),
    ("[roles.echo]\nworkers = 1", "roles.echo.command", None, "missing", "command = ["),
    ("[roles.echo]\ncommand = []", "roles.echo.command", None, "missing", "command = ["),
    ('[roles.echo]\ncommand = "echo"', "roles.echo.command", "echo", "a list, like", ""),
    ('[roles.echo]\ncommand = [""]', "roles.echo.command", ("",), "the program", "Name"),
    ("roles = 3", "roles", 3, "table of tables", "[roles.<name>]"),
    ("[roles]\necho = 3", "roles.echo", 3, "expected a table", "[roles.echo]"),
    ("", "roles", None, "no role", "Add a table"),
    (
        ROLE + '[roles.echo.admission]\non_full = "panic"',
        "roles.echo.admission.on_full",
        "panic",
        '"drop_oldest"',
        "reject",
    ),
    (
        ROLE + '[roles.echo.admission.rate]\nkind = "token"',
        "roles.echo.admission.rate.kind",
        "token",
        '"token_bucket"',
        "none",
    ),
    (
        ROLE + "[roles.echo.admission.adaptive]\nlimit_max = 3",
        "roles.echo.admission.adaptive.limit_min",
        4,
        "above limit_max, which is 3",
        "raise limit_max",
    ),
    (
        ROLE + "[roles.echo.breaker]\nopen_ms = 100000",
        "roles.echo.breaker.open_ms",
        100_000,
        "above open_max_ms",
        "raise open_max_ms",
    ),
    (
        ROLE + '[roles.echo.breaker]\nfailures = ["cancelled"]',
        "roles.echo.breaker.failures[0]",
        ["cancelled"],
        '"worker_crashed"',
        "deadline_exceeded",
    ),
    (ROLE + "[nodes.app]\ndepth_max = 1", "nodes.app", "app", "alive@host", "app@127.0.0.1"),
    (ROLE + "[nodes.'*'.rate]\njobs = 0", "nodes.*.rate.jobs", 0, "at least 1", "1000"),
    (ROLE + "[tenants.'*']\nweight = 3", "tenants.*.weight", 3, "a tenant's own", "Leave it"),
    (f"[roles.{'r' * 64}]\ncommand = ['x']", f"roles.{'r' * 64}", None, "63 bytes", "shorter"),
    ('[node]\nname = "bridge"\n' + ROLE, "node.name", "bridge", "alive@host", "bridge@127.0.0.1"),
    ('[node]\nlisten = "here"\n' + ROLE, "node.listen", "here", "an IP address", "127.0.0.1"),
    ('[node]\nallow = ["web"]\n' + ROLE, "node.allow", "web", "alive@host", "full node names"),
    ("[node]\nport = 65536\n" + ROLE, "node.port", 65536, "at most 65535", "default is 0"),
    ("[tls]\ncret = 'c'\n" + ROLE, "tls.cret", "c", "no such key", "Did you mean cert?"),
    ("[tls]\nca = 'c'\n" + ROLE, "tls.cert", None, "needs a certificate", "docs/tls.md"),
    ("[tls]\ncert = 'c'\n" + ROLE, "tls", None, 'verify = "mutual" needs a ca', "docs/tls.md"),
    ("[tls]\nverify = 'yes'\n" + ROLE, "tls.verify", "yes", '"mutual"', "mutual"),
    ("[tls]\nversions = ['1.1']\n" + ROLE, "tls.versions[0]", ["1.1"], '"1.2"', "1.3"),
    ("[link]\nslots = 1000\n" + ROLE, "link.slots", 1000, "power of two", "Take 512"),
    (
        "[link]\nresult_bytes = 100_000_000\n" + ROLE,
        "link.result_bytes",
        100_000_000,
        "times a power of two",
        "Take 67108864",
    ),
    (
        "[link]\nresult_bytes = 8_589_934_592\n" + ROLE,
        "link.result_bytes",
        8_589_934_592,
        "at most 1048576 times",
        "Raise result_block_bytes",
    ),
    (
        ROLE + "payload_bytes_max = 2_000_000\npool_bytes = 1_048_576",
        "roles.echo.payload_bytes_max",
        2_000_000,
        "not be above pool_bytes, which is 1048576",
        "raise pool_bytes",
    ),
    (ROLE + "pool_bytes = 100_000_000", "roles.echo.pool_bytes", 100_000_000, "4096", "99999744"),
    (
        "".join(f"[roles.r{n}]\ncommand = ['x']\n" for n in range(65)),
        "roles",
        None,
        "at most 64 roles",
        "second bridge",
    ),
    (
        "".join(f"[roles.r{n}]\ncommand = ['x']\nworkers = 1000\n" for n in range(3)),
        "roles",
        None,
        "at most 2048 workers, these are 3000",
        "Lower",
    ),
    (
        ROLE + "timeout_default_ms = 9_000\ntimeout_max_ms = 8_000",
        "roles.echo.timeout_default_ms",
        9_000,
        "not be above timeout_max_ms",
        "Lower it",
    ),
    (
        ROLE + 'env = { RINGBRIDGE_COOKIE = "x" }',
        "roles.echo.env",
        "RINGBRIDGE_COOKIE",
        "no worker is ever given the cookie",
        "Take it out",
    ),
    (
        ROLE + 'env = { RINGBRIDGE_LINK_FD = "9" }',
        "roles.echo.env",
        "RINGBRIDGE_LINK_FD",
        "set by the bridge itself",
        "another name",
    ),
    (
        ROLE + "[limits]\noutgoing_bytes_max = 1_048_576\noutgoing_high_bytes = 2_097_152",
        "limits.outgoing_high_bytes",
        2_097_152,
        "not be above outgoing_bytes_max",
        "raise outgoing_bytes_max",
    ),
    (
        ROLE + "[roles.echo.order]\naging_ms = -1",
        "roles.echo.order.aging_ms",
        -1,
        "at least 0",
        "",
    ),
    (
        ROLE + '[roles.echo.peers]\nallow = ["echo", "ecko"]',
        "roles.echo.peers.allow",
        "ecko",
        "there is no role ecko",
        "Did you mean echo? The roles are: echo",
    ),
    (
        ROLE + '[roles.echo.peers]\nallow = ["ech*", "sleep"]',
        "roles.echo.peers.allow",
        "sleep",
        "there is no role sleep",
        "Take it out, or write sleep* for roles that are yet to come. The roles are: echo",
    ),
    (ROLE + "[tenants.gold]\nweight = 1001", "tenants.gold.weight", 1001, "at most 1000", ""),
    (ROLE + "[tenants.gold]\nwieght = 1", "tenants.gold.wieght", 1, "no such key", "weight?"),
    (ROLE + f"atoms = ['{'x' * 128}']", "roles.echo.atoms", "x" * 128, "1 to 127 bytes", "binary"),
    (ROLE + "atoms = ['']", "roles.echo.atoms", "", "1 to 127 bytes", "binary"),
    (
        ROLE + f"[tenants.{'x' * 65}]",
        f"tenants.{'x' * 65}",
        "x" * 65,
        "1 to 64 bytes",
        "shorter",
    ),
    (
        ROLE + "".join(f"[tenants.t{n}]\n" for n in range(1025)),
        "tenants",
        None,
        "at most 1024 tenants",
        "that need none",
    ),
    (
        "[limits]\noutgoing_bytes_max = 67_108_864\n"
        + ROLE
        + "payload_bytes_max = 62_914_560\n[roles.echo.remote]\nnodes = ['app@host']\n",
        "roles.echo.payload_bytes_max",
        62_914_560,
        "must fit a connection: at most 61865984",
        "Lower it, or raise limits.outgoing_bytes_max",
    ),
    ('[metrics]\nlisten = "9568"\n' + ROLE, "metrics.listen", "9568", "an IP address", "9568"),
    ('[metrics]\nlisten = "::1:9"\n' + ROLE, "metrics.listen", "::1:9", "an IP address", "[::1]"),
    ('[metrics]\nlisten = "here:1"\n' + ROLE, "metrics.listen", "here:1", "an IP address", "9568"),
    ("[node\n", "(syntax)", None, "not TOML", "that line"),
]


@pytest.mark.parametrize(
    ("text", "key", "value", "rule", "mend"),
    BROKEN,
    ids=[f"{row[1]}-{i}" for i, row in enumerate(BROKEN)],
)
def test_an_error_names_file_key_value_rule_and_mend(
    text: str, key: str, value: object, rule: str, mend: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    error = caught.value
    assert error.key == key
    if value is not None:
        assert error.value == value
    assert rule in error.rule
    assert mend in error.mend
    assert str(error).startswith(f"/etc/ringbridge/ringbridge.toml: {key}")
    assert error.rule in str(error)
    assert error.mend in str(error)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: .*No such file.*--config"):
        settings.load(tmp_path / "none.toml")


def test_a_relative_command_starts_at_the_folder_of_the_file(tmp_path: Path) -> None:
    program = tmp_path / "echo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    config = read('[roles.echo]\ncommand = ["./echo", "-v"]', tmp_path)
    assert config.role_argv("echo") == (str(program), "-v")


def test_a_program_that_is_a_link_is_started_by_the_link_s_name(tmp_path: Path) -> None:
    """The python of a venv is one, and finds the packages of its venv by that name."""
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to("/bin/sh")
    (tmp_path / "ringbridge.toml").write_text('[roles.a]\ncommand = ["./x/../venv/python"]\n')
    config = settings.load(tmp_path / "ringbridge.toml")
    assert config.role_argv("a") == (str(tmp_path / "venv" / "python"),)


def test_a_command_without_a_slash_is_found_on_path(tmp_path: Path) -> None:
    config = read('[roles.echo]\ncommand = ["sh"]', tmp_path)
    assert Path(config.role_argv("echo")[0]).name == "sh"


@pytest.mark.parametrize(
    ("command", "rule", "mend"),
    [
        ("build/bin/rb-none", "does not exist", "make workers"),
        ("./none", "does not exist", "Correct the path"),
        ("no-such-program-anywhere", "no such program on PATH", "a path with a slash"),
        ("./plain", "not executable", "chmod +x"),
    ],
)
def test_a_command_that_cannot_run_says_what_to_do(
    tmp_path: Path, command: str, rule: str, mend: str
) -> None:
    (tmp_path / "plain").write_text("")
    config = read(f'[roles.echo]\ncommand = ["{command}"]', tmp_path)
    with pytest.raises(ConfigError, match=re.escape(rule)) as caught:
        config.role_argv("echo")
    assert caught.value.key == "roles.echo.command"
    assert mend in caught.value.mend


def test_the_documentation_describes_every_key_with_its_default_and_no_other() -> None:
    text = (
        (ROOT / "docs" / "configuration.md").read_text().replace("&lt;", "<").replace("&gt;", ">")
    )
    parts = re.split(
        r"^## \[(.*?)\]$", text.partition("\n## The environment")[0], flags=re.MULTILINE
    )
    described = {
        heading: dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", body, re.MULTILINE))
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    assert described.keys() == dict(settings.sections()).keys()
    for heading, type_ in settings.sections():
        rows = described[heading]
        fields = {
            field.name: field.default
            for field in msgspec.structs.fields(type_)
            if sub_section(type_, field.name) is None
        }
        assert rows.keys() == fields.keys(), heading
        for name, default in fields.items():
            where = f"{heading}.{name}"
            if type(default) is bool:
                assert rows[name] == f"`{str(default).lower()}`", where
            elif type(default) in (int, float):
                assert rows[name].replace(" ", "") == f"`{default}`", where
            elif type(default) is str:
                assert rows[name] == f'`"{default}"`', where


def test_the_files_of_tls_lie_beside_the_settings_and_no_worker_may_read_the_key() -> None:
    config = read("[tls]\ncert = 'a.pem'\nkey = '/b.key'\nca = 'c/d.pem'\n" + ROLE)
    tls = config.tls_config()
    assert tls is not None
    assert tls.files == ("/etc/ringbridge/a.pem", "/b.key", "/etc/ringbridge/c/d.pem")
    assert (tls.verify, tls.versions) == ("mutual", ("1.2", "1.3"))
    assert config.secrets() == [Path("/b.key")]
    in_one = read("[tls]\ncert = 'a.pem'\nverify = 'none'\n" + ROLE)
    assert in_one.secrets() == [Path("/etc/ringbridge/a.pem")]
    assert read(ROLE).tls_config() is None


class _Inner(Section, frozen=True):
    rate: Annotated[int, msgspec.Meta(ge=1)]
    policy: Literal["reject", "defer"] = "reject"


class _Middle(Section, frozen=True):
    inner: _Inner | None = None


class _Outer(Section, frozen=True):
    middle: _Middle = msgspec.field(default_factory=_Middle)


@pytest.mark.parametrize(
    ("table", "key", "value", "rule", "mend"),
    [
        ({"middel": {}}, "roles.x.middel", {}, "no such key", "Did you mean middle?"),
        (
            {"middle": {"inner": {"rtae": 1, "rate": 1}}},
            "roles.x.middle.inner.rtae",
            1,
            "no such key",
            "keys here are: rate, policy",
        ),
        (
            {"middle": {"inner": {}}},
            "roles.x.middle.inner.rate",
            None,
            "the key rate is missing",
            "Add it below [roles.x.middle.inner]",
        ),
        ({"middle": {"inner": {"rate": 0}}}, "roles.x.middle.inner.rate", 0, "at least 1", "docs"),
        (
            {"middle": {"inner": {"rate": 1, "policy": "drop"}}},
            "roles.x.middle.inner.policy",
            "drop",
            '"reject", "defer"',
            'The default is "reject"',
        ),
        ({"middle": 3}, "roles.x.middle", 3, "expected a table", "Write [roles.x.middle]"),
        ({"middle": {"inner": 3}}, "roles.x.middle.inner", 3, "a table", "[roles.x.middle.inner]"),
    ],
)
def test_an_error_in_a_sub_table_names_the_whole_path_of_its_key(
    table: object, key: str, value: object, rule: str, mend: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(_Outer, table, "roles.x", Path("ringbridge.toml"))
    error = caught.value
    assert (error.key, error.value) == (key, value)
    assert rule in error.rule
    assert mend in error.mend
