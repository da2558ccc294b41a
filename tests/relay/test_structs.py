"""Records of Python into structs of the core, and back."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.fabric import structs
from bridge.fabric._core import ffi, lib
from bridge.fabric.limits import AdmissionLimits, RelayLimits, RoleLimits

OURS = frozenset({"outgoing_high_bytes"})


def test_every_field_of_a_role_reaches_the_core() -> None:
    """A field that the core has and the record lacks would stay zero, and nobody would notice."""

    def given(struct: Any, record: object) -> None:
        for name, field in struct.fields:
            if field.type.kind == "struct":
                given(field.type, getattr(record, name))
            elif not name.endswith("_count"):
                getattr(record, name)

    given(ffi.typeof("struct rb_role_config"), RoleLimits("echo"))


def test_nested_records_fill_nested_structs() -> None:
    limits = RoleLimits("r\u00f4le", timeout_max_ms=2**33, admission=AdmissionLimits(depth_max=7))
    filled = structs.filled("struct rb_role_config", limits)
    assert ffi.string(filled.pointer.name).decode() == "r\u00f4le"
    assert filled.pointer.timeout_max_ms == 2**33
    assert filled.pointer.admission.depth_max == 7
    assert filled.pointer.choice.credit_us == 200


def test_texts_fill_an_array_of_texts_and_one_that_is_too_long_is_refused() -> None:
    filled = structs.filled("struct rb_role_config", RoleLimits("echo", atoms=("done", "f\u00fcr")))
    assert filled.pointer.atoms_count == 2
    assert ffi.string(filled.pointer.atoms[1]).decode() == "f\u00fcr"
    for atoms in (("x" * 128,), ("a\0b",), ("x",) * 65):
        with pytest.raises(ValueError, match="atoms: "):
            structs.filled("struct rb_role_config", RoleLimits("echo", atoms=atoms))


def test_a_number_that_a_field_cannot_hold_is_refused() -> None:
    limits = RoleLimits("echo", admission=AdmissionLimits(depth_max=2**32))
    with pytest.raises(OverflowError):
        structs.filled("struct rb_role_config", limits)


def test_a_field_that_the_core_lacks_is_refused() -> None:
    with pytest.raises(AttributeError, match="rb_relay_config has no field outgoing_high_bytes"):
        structs.filled("struct rb_relay_config", RelayLimits())


def test_a_word_that_the_core_does_not_know_is_refused() -> None:
    @dataclass
    class Words:
        depth_max: str

    limits = replace(RoleLimits("echo"), admission=Words("deep"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the core has no RB_ADMISSION_DEEP for 'deep'"):
        structs.filled("struct rb_role_config", limits)


def test_figures_are_read_back_by_name_arrays_by_reason() -> None:
    @dataclass
    class Figures:
        accepted: int
        answered: dict[str, int]

    raw = ffi.new("struct rb_relay_stats *")
    raw.accepted = 3
    raw.answered[lib.RB_REASON_DEADLINE_EXCEEDED] = 4
    figures = structs.record(Figures, raw)
    assert figures.accepted == 3
    assert figures.answered["deadline_exceeded"] == 4
    assert list(figures.answered)[:2] == ["ok", "overloaded"]
