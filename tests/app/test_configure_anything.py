"""Whatever an admin sends as a change is taken, or refused in words; nothing else comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Config, ConfigError, parse, sections, with_value
from bridge.etf import Atom
from bridge.workers.registry import WorkerRegistry

CONFIG = parse('[roles.echo]\ncommand = ["x"]\n[tls]\ncert = "c"\nca = "c"\n', Path("/x.toml"))
KEYS = [
    f"{heading.replace('<name>', 'echo')}.{name}"
    for heading, type_ in sections()
    for name in type_.__struct_fields__
]

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**5_000, max_value=10**5_001),
    st.floats(),
    st.binary(max_size=20),
    st.sampled_from([Atom("reject"), Atom("nil"), b"none", b"\xff", b"a@b", b""]),
)
terms = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([b"A", Atom("a"), b"*@*", 1]), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=5,
)


class Taking:
    """An operator that changes nothing but what it is given."""

    config: Config = CONFIG

    def configure(self, key: str, value: Any) -> list[Any]:
        self.config = with_value(CONFIG, key, value)
        return []

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(file="x", key=name, rule="not here", mend="")


def ask(request: Any) -> Any:
    registry = WorkerRegistry(
        None,  # type: ignore[arg-type]
        figures=lambda worker_id: None,
        operator=Taking(),
    )
    return registry.answer_any(request)


@given(st.sampled_from(KEYS) | st.text(alphabet="roles.echo_x", max_size=20), terms)
def test_any_value_at_any_key(key: str, value: Any) -> None:
    match ask((Atom("configure"), key.encode(), value)):
        case (Atom("ok"), []):
            pass
        case (Atom("error"), (Atom("bad_request"), why)):
            assert why
        case answer:
            raise AssertionError(answer)


@given(st.sampled_from(["upgrade", "breaker", "drain_role", "configure"]), terms, terms)
def test_any_arguments_of_any_request(name: str, first: Any, second: Any) -> None:
    for request in ((Atom(name), first), (Atom(name), first, second)):
        answer = ask(request)
        assert answer[0] in (Atom("ok"), Atom("error"))


def test_a_very_deep_value_is_refused() -> None:
    value: Any = 1
    for _ in range(5_000):
        value = [value]
    answer = ask((Atom("configure"), b"roles.echo.command", value))
    assert answer[0] == Atom("error")
