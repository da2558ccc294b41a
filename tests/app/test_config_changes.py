"""Two configurations: what lies between them, and what of it a running bridge cannot take."""

from pathlib import Path
from typing import Any

import pytest

from bridge.config import Change, Config, ConfigError, changes, parse, refused, with_value

TEXT = """
[node]
drain_ms = 1_000
[node.peers]
"*@*" = 9100
[roles.echo]
command = ["x"]
env = { A = "1" }
[roles."two.parts"]
command = ["y"]
"""


def read(text: str = TEXT) -> Config:
    return parse(text, Path("/etc/ringbridge.toml"))


@pytest.mark.parametrize(
    ("was", "now", "key", "value"),
    [
        ("drain_ms = 1_000", "drain_ms = 2_000", "node.drain_ms", (1_000, 2_000)),
        ('"*@*" = 9100', "", "node.peers", ({"*@*": 9100}, {})),
        ('env = { A = "1" }', 'env = { A = "2" }', "roles.echo.env", ({"A": "1"}, {"A": "2"})),
        ('["y"]', '["z"]', "roles.two.parts.command", (("y",), ("z",))),
        (
            "[roles.echo]",
            "[limits]\narrival_ms = 5\n[roles.echo]",
            "limits.arrival_ms",
            (30_000, 5),
        ),
    ],
)
def test_a_key_that_differs_is_named_with_both_values(
    was: str, now: str, key: str, value: tuple[Any, Any]
) -> None:
    assert changes(read(), read(TEXT.replace(was, now))) == [Change(key, *value)]


def test_equal_files_have_no_changes() -> None:
    assert changes(read(), read("# a comment" + TEXT)) == []


def test_a_role_that_comes_or_goes_is_one_change() -> None:
    more = read(TEXT + '[roles.more]\ncommand = ["z"]\n')
    assert changes(read(), more) == [Change("roles.more", None, more.roles["more"])]
    assert changes(more, read()) == [Change("roles.more", more.roles["more"], None)]
    assert refused(read(), more) == []


@pytest.mark.parametrize(
    ("was", "now", "key", "rule"),
    [
        ("[node]", '[node]\nname = "b@127.0.0.1"', "node.name", "keeps its name"),
        ("[node]", "[node]\nport = 9000", "node.port", "where peers were told"),
        ("[node]", "[node]\natom_cache = true", "node.atom_cache", "when it starts"),
        ("[node]", '[tls]\ncert="c"\nca="c"\n[node]', "tls", "for life, or never"),
        ('["x"]', '["x"]\npool_bytes = 134217728', "roles.echo.pool_bytes", "mapped it"),
    ],
)
def test_what_cannot_change_says_why_and_what_to_do(
    was: str, now: str, key: str, rule: str
) -> None:
    (error,) = refused(read(), read(TEXT.replace(was, now)))
    assert error.key == key
    assert rule in error.rule
    assert "Restart the bridge" in error.mend


def test_every_refusal_is_told_not_only_the_first() -> None:
    other = TEXT.replace("[node]", '[node]\nport = 9000\nname = "b@127.0.0.1"')
    assert [error.key for error in refused(read(), read(other))] == ["node.name", "node.port"]


def test_the_files_of_tls_may_change() -> None:
    table = '[tls]\ncert = "a"\nca = "b"\n'
    assert refused(read(table + TEXT), read(table.replace('"b"', '"c"') + TEXT)) == []
    (error,) = refused(read(table + TEXT), read(table.replace('"a"', '"c"') + TEXT))
    assert (error.key, "kept from reading the key" in error.rule) == ("tls.cert", True)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("roles.echo.depth_max", 100, lambda c: c.roles["echo"].depth_max == 100),
        ("roles.two.parts.depth_max", 7, lambda c: c.roles["two.parts"].depth_max == 7),
        ("roles.echo.command", ["a", "b"], lambda c: c.roles["echo"].command == ("a", "b")),
        ("node.drain_ms", None, lambda c: c.node.drain_ms == 10_000),
        ("node.admin_nodes", ["ops@h.x"], lambda c: c.node.admin_nodes == ("ops@h.x",)),
    ],
)
def test_one_key_is_changed_the_rest_stays(key: str, value: Any, found: Any) -> None:
    made = with_value(read(), key, value)
    assert found(made)
    assert [change.key for change in changes(read(), made)] == [key]


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("roles.echo.depth_max", 0, "at least 1"),
        ("roles.echo.depht_max", 9, "no such key"),
        ("roles.ecco.depth_max", 9, "there is no role ecco"),
        ("roles.echo.depth_max.more", 9, "roles.echo.depth_max is no table"),
        ("roles.echo", 9, "a table"),
        ("rolls.echo", 9, "no such key"),
        ("", 9, "no such key"),
        ("roles.echo.payload_bytes_max", 2**30, "not be above pool_bytes"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_as_in_a_file(
    key: str, value: Any, rule: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_value(read(), key, value)
    assert rule in caught.value.rule
