"""The file of checkpoints: what is there after which calls, and after which deaths."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

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
def test_it_is_a_row_of_checkpoints_for_each_place(steps: list, encrypted: bool) -> None:
    store = Store(None, sealer=AesGcm(bytes(32)) if encrypted else Plain())
    model: dict[int, list[tuple[Kind, bytes]]] = {0: [], 1: [], 2: []}
    for step in steps:
        match step:
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
    with pytest.raises((StoreFailed, OSError)):
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
