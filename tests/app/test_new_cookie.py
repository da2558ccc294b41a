"""Where `serve` takes its cookie from, and what it does when there is none."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.dist.cookie import Cookie, read_cookie_file
from bridge.dist.errors import CookieError
from bridge.ops.new_cookie import create_cookie_file, find_or_create_cookie

CHALLENGE = 4711
NO_ENV: Mapping[str, str] = {}


def cookie_file(path: Path, secret: str) -> Path:
    path.write_text(secret)
    path.chmod(0o400)
    return path


def proof(secret: str) -> bytes:
    return Cookie(secret).digest(CHALLENGE)


def find(
    home: Path,
    *,
    option: Path | None = None,
    configured: Path | None = None,
    env: Mapping[str, str] = NO_ENV,
) -> Cookie:
    return find_or_create_cookie(
        cookie_file=option,
        configured_file=configured,
        environ={"HOME": str(home), **env},
        create=True,
    )


def test_the_places_are_asked_in_order(tmp_path: Path) -> None:
    option = cookie_file(tmp_path / "option", "OPTION")
    configured = cookie_file(tmp_path / "configured", "CONFIGURED")
    cookie_file(tmp_path / ".erlang.cookie", "HOME")
    env = {"RINGBRIDGE_COOKIE": "VARIABLE"}
    assert find(tmp_path, option=option, configured=configured, env=env).proves(
        proof("OPTION"), 4711
    )
    assert find(tmp_path, configured=configured, env=env).proves(proof("VARIABLE"), 4711)
    assert find(tmp_path, configured=configured).proves(proof("CONFIGURED"), 4711)
    assert find(tmp_path).proves(proof("HOME"), 4711)


def test_without_any_cookie_one_is_created_as_erl_does_it_and_told(tmp_path: Path) -> None:
    with capture_logs() as logs:
        found = find(tmp_path)
    file = tmp_path / ".erlang.cookie"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert len(file.read_text()) == 20
    assert file.read_text().isupper()
    assert found.proves(proof(file.read_text()), CHALLENGE)
    assert logs[0]["file"] == str(file)
    assert file.read_text() not in str(logs)
    assert [path.name for path in tmp_path.iterdir()] == [".erlang.cookie"]


def test_where_a_beam_reads_it_from_the_folder_of_settings_so_do_we(tmp_path: Path) -> None:
    folder = tmp_path / "settings" / "erlang"
    folder.mkdir(parents=True)
    cookie_file(folder / ".erlang.cookie", "SETTINGS")
    settings = {"XDG_CONFIG_HOME": str(tmp_path / "settings")}
    assert find(tmp_path, env=settings).proves(proof("SETTINGS"), CHALLENGE)
    assert not (tmp_path / ".erlang.cookie").exists()
    cookie_file(tmp_path / ".erlang.cookie", "HOME")  # which a BEAM prefers
    assert find(tmp_path, env=settings).proves(proof("HOME"), CHALLENGE)


def test_a_cookie_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    file = cookie_file(tmp_path / ".erlang.cookie", "THEIRS")
    assert create_cookie_file(file).proves(proof("THEIRS"), CHALLENGE)
    assert read_cookie_file(file).proves(proof("THEIRS"), CHALLENGE)


def test_a_home_that_cannot_be_written_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CookieError, match=r"cannot be created.*RINGBRIDGE_COOKIE.*--cookie-file"):
        find(tmp_path / "none")


def test_status_creates_no_cookie(tmp_path: Path) -> None:
    with pytest.raises(CookieError, match="no cookie"):
        find_or_create_cookie(
            cookie_file=None, configured_file=None, environ={"HOME": str(tmp_path)}, create=False
        )
    assert not list(tmp_path.iterdir())


def test_a_cookie_file_that_others_can_read_is_refused_with_the_mend(tmp_path: Path) -> None:
    file = cookie_file(tmp_path / "loose", "SECRET")
    file.chmod(0o644)
    with pytest.raises(CookieError, match="chmod 400"):
        find(tmp_path, option=file)
