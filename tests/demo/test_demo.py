"""make demo: it runs to its end where everything is there, and does not believe what is wrong."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from bridge import config as settings

ROOT = Path(__file__).parents[2]
# The installed package is `bridge` alone; the demo is found from the root of the checkout.
sys.path.insert(0, str(ROOT))
from integration.demo import __main__ as demo  # noqa: E402
from integration.demo import prepare, roles  # noqa: E402

HERE = [role for role in roles.SHOWN if role.missing(ROOT) is None or role.name == "analytics"]


@pytest.mark.beam
@pytest.mark.timeout(180)
def test_every_role_that_is_built_is_shown_and_leaves_its_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--out", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    last = said[said.index("What was compared") :]
    for role in HERE:
        assert f"\n{role.name}: " in last
    assert "BEYOND" not in last
    pictures = {"simulation": "orbits.png", "pathfinding": "route.png", "worldgen": "terrain.png"}
    for role in HERE:
        if name := pictures.get(role.name):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
            assert name in said


@pytest.mark.beam
def test_a_reference_that_says_something_else_is_told_and_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare.terrain(tmp_path)
    reference = bytearray((tmp_path / "terrain.reference").read_bytes())
    (value,) = struct.unpack_from("<d", reference, 800)
    struct.pack_into("<d", reference, 800, value + 1e-12)
    (tmp_path / "terrain.reference").write_bytes(reference)
    assert demo.main(["--out", str(tmp_path), "worldgen"]) == 1
    said = capfd.readouterr()
    assert "1e-12" in said.out
    assert "4e-15: BEYOND" in said.out
    assert "beyond what is allowed: worldgen: 1,500 heights" in said.err


def test_a_role_that_was_not_built_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    route = [role for role in roles.SHOWN if role.name == "pathfinding"]
    shown, left_out = demo.prepare(route, tmp_path)
    assert (shown, [role.name for role, _ in left_out]) == ([], ["pathfinding"])
    assert "there is no build/bin/rb-pathfinding. It needs cargo" in capsys.readouterr().out

    for file in route[0].needs:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert demo.prepare(route, tmp_path) == (route, [])


def test_the_settings_that_it_leaves_are_good_ones_wherever_they_lie(tmp_path: Path) -> None:
    file = tmp_path / "ringbridge.toml"
    file.write_text(roles.configuration(list(roles.SHOWN), ROOT))
    config = settings.load(file)
    assert list(config.roles) == ["echo", "simulation", "pathfinding", "worldgen", "analytics"]
    assert config.roles["pathfinding"].command[1] == str(ROOT / "build/data/sea.mask")
