"""The file of checkpoints: what is there after which calls, and after which deaths."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config import CheckpointSettings
from bridge.workers.channel.packets import Code, Kind, NotHad
from bridge.workers.checkpoints.keeper import Keeper
from bridge.workers.checkpoints.sealing import AesGcm, Plain, SealError, read_key
from bridge.workers.checkpoints.store import Place, Store, StoreFailed

A, B = Place("role", 0), Place("role", 1)
FULL, MORE = Kind.FULL, Kind.INCREMENTAL
ROOT = Path(__file__).parents[2]


def states(store: Store, place: Place) -> list[tuple[Kind, bytes]]:
    return [(part.kind, part.state) for part in store.get(place)]


def test_a_whole_one_replaces_what_was_there_and_increments_follow() -> None:
    store = Store(None)
    assert store.get(A) == []
    assert store.kept(A) is None
    store.put(A, FULL, b"1")
    store.put(A, MORE, b"22")
    store.put(B, FULL, b"other")
    assert states(store, A) == [(FULL, b"1"), (MORE, b"22")]
    kept = store.kept(A)
    assert kept is not None
    assert (kept.increments, kept.bytes) == (1, 3)
    store.put(A, FULL, b"3")
    assert states(store, A) == [(FULL, b"3")]
    store.drop(A)
    assert (states(store, A), states(store, B)) == ([], [(FULL, b"other")])


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2), st.sampled_from(Kind), st.binary(max_size=9)),
        st.tuples(st.just("move"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 2)),
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(_steps, st.booleans())
def test_it_is_a_row_of_checkpoints_for_each_place(steps: list[Any], encrypted: bool) -> None:
    store = Store(None, sealer=AesGcm(bytes(32)) if encrypted else Plain())
    model: dict[int, list[tuple[Kind, bytes]]] = {0: [], 1: [], 2: []}
    for step in steps:
        match step:
            case ("put", index, Kind.INCREMENTAL, _) if not model[index]:
                pass  # behind nothing: the keeper asks for the whole then
            case ("put", index, kind, state):
                store.put(Place("role", index), kind, state)
                model[index] = [*([] if kind is FULL else model[index]), (kind, state)]
            case ("move", source, target) if source != target:
                store.move(Place("role", source), Place("role", target))
                model[target], model[source] = model[source], []
            case ("drop", index):
                store.drop(Place("role", index))
                model[index] = []
    for index, wanted in model.items():
        assert states(store, Place("role", index)) == wanted
    store.close()


def test_what_is_too_much_for_the_file_is_refused_and_the_last_one_stands(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", bytes_max=1 << 20)
    store.put(A, FULL, b"x" * 400_000)
    with pytest.raises(StoreFailed, match="full"):
        store.put(A, FULL, b"y" * 2_000_000)
    assert states(store, A) == [(FULL, b"x" * 400_000)]
    store.put(A, FULL, b"z" * 100)
    assert states(store, A) == [(FULL, b"z" * 100)]


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"no database at all, and long enough to tell" * 100)
    with pytest.raises(StoreFailed, match="not a database"):
        Store(path)
    with pytest.raises(StoreFailed, match="No such file"):
        Store(tmp_path / "nowhere" / "state")
    path.unlink()
    Store(path).close()
    with pytest.raises(StoreFailed, match="begun as plain"):
        Store(path, sealer=AesGcm(bytes(32)))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE about SET version = 2")
    with pytest.raises(StoreFailed, match="version 2"):
        Store(path)


def test_another_key_does_not_open_it_nor_a_row_that_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = Store(path, sealer=AesGcm(bytes(32)))
    store.put(A, FULL, b"secret a")
    store.put(B, FULL, b"secret b")
    store.close()
    with pytest.raises(StoreFailed, match="the key is another"):
        Store(path, sealer=AesGcm(bytes(31) + b"\1"))
    with sqlite3.connect(path) as db:
        for was, now in ((0, 7), (1, 0), (7, 1)):
            db.execute("UPDATE checkpoint SET place = ? WHERE place = ?", (now, was))
    swapped = Store(path, sealer=AesGcm(bytes(32)))
    with pytest.raises(StoreFailed, match="was changed"):
        swapped.get(A)
    assert AesGcm(bytes(32)).seal(b"x", b"") != AesGcm(bytes(32)).seal(b"x", b"")
    with pytest.raises(SealError):
        AesGcm(bytes(32)).open(b"short", b"")


def test_a_key_is_32_bytes_or_64_digits_and_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(bytes(range(32)))
    assert read_key(path) == bytes(range(32))
    path.write_text(bytes(range(32)).hex() + "\n")
    assert read_key(path) == bytes(range(32))
    for wrong in (b"", bytes(31), b"zz" * 32, bytes(64)):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="a key is 32 bytes"):
            read_key(path)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="others may read it"):
        read_key(path)


def by_hand(path: Path, damage: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(damage)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoint SET kind = 7",
        "UPDATE checkpoint SET kind = 'whole'",
        "UPDATE checkpoint SET kind = 0.5",
        "UPDATE checkpoint SET kind = 1 - kind",  # the increment first
        "UPDATE checkpoint SET kind = 0",  # two whole ones
        "UPDATE checkpoint SET state = 'a text'",
        "UPDATE checkpoint SET state = 12",
        "UPDATE checkpoint SET state = zeroblob(3)",
        "UPDATE checkpoint SET saved_ms = 'yesterday'",
        "UPDATE checkpoint SET number = 'the ' || number",
        "UPDATE checkpoint SET number = number + 0.5",
        "DROP TABLE checkpoint;"
        " CREATE TABLE checkpoint (role, place, number, kind, saved_ms, state);"
        " INSERT INTO checkpoint VALUES ('role', 0, NULL, NULL, NULL, NULL)",
        "DROP TABLE checkpoint; CREATE TABLE checkpoint (role, place)",
    ],
)
async def test_what_another_hand_wrote_into_the_file_is_a_refusal(
    tmp_path: Path, damage: str, encrypted: bool
) -> None:
    path = tmp_path / "state"
    sealer = AesGcm(bytes(32)) if encrypted else Plain()
    store = Store(path, sealer=sealer)
    store.put(A, FULL, b"whole")
    store.put(A, MORE, b"more")
    store.close()
    by_hand(path, damage)
    keeper = Keeper(lambda: Store(path, sealer=sealer))
    rules = CheckpointSettings(keep=True)
    looks: list[Callable[[], Awaitable[object]]] = [
        lambda: keeper.load(A),
        lambda: keeper.move(A, B),
    ]
    if "zeroblob" not in damage or encrypted:  # in the clear nobody can tell
        for look in looks:
            with pytest.raises(NotHad) as error:
                await look()
            assert error.value.code is Code.STORE_FAILED
            assert error.value.detail
    for look in (
        lambda: keeper.kept(A),
        lambda: keeper.save(A, MORE, b"x", rules),
        lambda: keeper.save(A, FULL, b"", rules),
    ):
        with suppress(NotHad):
            await look()
    await keeper.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE about SET mark = 'a text'",
        "UPDATE about SET mark = 3",
        "UPDATE about SET version = 'one'",
        "UPDATE about SET sealer = x'00'",
        "DROP TABLE about; CREATE TABLE about (version)",
        "DROP TABLE about; CREATE TABLE about (version, sealer, mark);"
        " INSERT INTO about VALUES (NULL, NULL, NULL)",
    ],
)
@pytest.mark.parametrize("encrypted", [False, True])
def test_nor_does_what_another_hand_wrote_open(
    tmp_path: Path, damage: str, encrypted: bool
) -> None:
    path = tmp_path / "state"
    sealer = AesGcm(bytes(32)) if encrypted else Plain()
    Store(path, sealer=sealer).close()
    by_hand(path, damage)
    with pytest.raises(StoreFailed):
        Store(path, sealer=sealer)


# Writes whole checkpoints of one repeated byte, each in its turn, until it is killed.
_WRITER = """
import sys
from pathlib import Path
from bridge.workers.checkpoints.store import *
store, n = Store(Path(sys.argv[1])), 0
while True:
    n += 1
    store.put(Place("role", 0), Kind.FULL, bytes([n % 251]) * 100_000)
    store.put(Place("role", 0), Kind.INCREMENTAL, bytes([n % 251]) * 1_000)
    print(n, flush=True)
"""


@pytest.mark.parametrize("after", [1, 3, 10])
def test_a_writer_that_is_killed_leaves_whole_checkpoints(tmp_path: Path, after: int) -> None:
    path = tmp_path / "state"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, path], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    for _ in range(after):
        told = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    parts = Store(path).get(Place("role", 0))
    assert parts[0].kind is FULL
    assert len(parts) in (1, 2)
    assert [len(part.state) for part in parts] == [100_000, 1_000][: len(parts)]
    (value,) = {*parts[0].state, *parts[-1].state}
    assert value >= told  # what was told to be kept is kept


async def test_the_keeper_bounds_what_a_place_keeps() -> None:
    keeper = Keeper(lambda: Store(None))
    rules = CheckpointSettings(keep=True, bytes_max=10, increments_max=2)

    async def refused(kind: Kind, state: bytes) -> Code:
        with pytest.raises(NotHad) as error:
            await keeper.save(A, kind, state, rules)
        return error.value.code

    assert await refused(MORE, b"1") is Code.FULL_WANTED
    assert await refused(FULL, b"x" * 11) is Code.TOO_LARGE
    await keeper.save(A, FULL, b"12345", rules)
    assert await refused(MORE, b"123456") is Code.FULL_WANTED  # the whole may be smaller
    assert await refused(MORE, b"x" * 11) is Code.TOO_LARGE
    await keeper.save(A, MORE, b"1", rules)
    await keeper.save(A, MORE, b"2", rules)
    assert await refused(MORE, b"3") is Code.FULL_WANTED
    assert [part.state for part in await keeper.load(A)] == [b"12345", b"1", b"2"]
    await keeper.move(A, B)
    assert await keeper.load(A) == []
    await keeper.aclose()


async def test_a_store_that_cannot_be_opened_is_told_to_whoever_wants_it() -> None:
    def fails() -> Store:
        raise StoreFailed("no room on the disk")

    keeper = Keeper(fails)
    with pytest.raises(NotHad) as error:
        await keeper.load(A)
    assert (error.value.code, error.value.detail) == (Code.STORE_FAILED, "no room on the disk")
