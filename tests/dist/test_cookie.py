"""Where the cookie comes from, and OTP's rules for its file (auth.erl)."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from bridge.dist.cookie import Cookie, find_cookie, read_cookie_fd, read_cookie_file
from bridge.dist.errors import CookieError


def write(path: Path, data: bytes, mode: int = 0o400) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def is_cookie(cookie: Cookie, text: str) -> bool:
    return cookie.digest(1) == hashlib.md5(text.encode() + b"1").digest()


@pytest.mark.parametrize(
    ("data", "cookie"),
    [
        (b"SECRET", "SECRET"),
        (b"SECRET\n", "SECRET"),
        (b"SECRET\r\n \n", "SECRET"),
        (b"SEC RET \n", "SEC RET "),
    ],
)
def test_a_cookie_file_is_one_line(tmp_path: Path, data: bytes, cookie: str) -> None:
    assert is_cookie(read_cookie_file(write(tmp_path / "cookie", data)), cookie)


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o620, 0o601])
def test_a_cookie_file_that_others_can_use_is_refused_with_the_mend(
    tmp_path: Path, mode: int
) -> None:
    file = write(tmp_path / "cookie", b"SECRET", mode)
    with pytest.raises(CookieError) as caught:
        read_cookie_file(file)
    message = str(caught.value)
    assert f"{mode:04o}" in message
    assert f"chmod 400 {file}" in message
    assert "owner" in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"two\nlines\n", b"caf\xc3\xa9", b"tab\there", b"A" * 256]
)
def test_a_cookie_that_is_none_is_refused_without_showing_it(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CookieError) as caught:
        read_cookie_file(write(tmp_path / "cookie", data))
    assert str(tmp_path / "cookie") in str(caught.value)
    assert "lines" not in str(caught.value)


def test_a_cookie_file_is_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(CookieError, match="regular file"):
        read_cookie_file(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o400)
    with pytest.raises(CookieError, match="regular file"):
        read_cookie_file(tmp_path / "fifo")
    with pytest.raises(CookieError, match="No such file"):
        read_cookie_file(tmp_path / "nothing")


def test_a_descriptor_is_read_to_its_end_and_closed() -> None:
    ours, writes = os.pipe()
    os.write(writes, b"SEC")
    os.write(writes, b"RET\n")
    os.close(writes)
    cookie = read_cookie_fd(ours)
    assert is_cookie(cookie, "SECRET")
    assert repr(cookie) == f"<Cookie from descriptor {ours}>"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)


@pytest.mark.parametrize("data", [b"", b"two\nlines", b"caf\xc3\xa9", b"x" * 5000])
def test_a_descriptor_without_a_cookie_is_refused_without_showing_it(data: bytes) -> None:
    ours, writes = os.pipe()
    os.write(writes, data)
    os.close(writes)
    with pytest.raises(CookieError, match=f"descriptor {ours}") as refused:
        read_cookie_fd(ours)
    assert not data or data.decode("latin-1") not in str(refused.value)


def test_the_first_place_that_has_a_cookie_gives_it(tmp_path: Path) -> None:
    file = write(tmp_path / "cookie", b"from-file")
    write(tmp_path / ".erlang.cookie", b"from-home\n")
    home = {"HOME": str(tmp_path)}
    env = {"RINGBRIDGE_COOKIE": "from-environment", **home}
    assert is_cookie(find_cookie(cookie="given", cookie_file=file, environ=env), "given")
    assert is_cookie(find_cookie(cookie_file=file, environ=env), "from-file")
    assert is_cookie(find_cookie(environ=env), "from-environment")
    assert is_cookie(find_cookie(environ=home), "from-home")


def test_no_cookie_anywhere_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(CookieError) as caught:
        find_cookie(environ={"HOME": str(tmp_path)})
    for place in ("RINGBRIDGE_COOKIE", "--cookie-file", ".erlang.cookie"):
        assert place in str(caught.value)


def test_a_place_with_a_broken_cookie_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / ".erlang.cookie", b"from-home")
    with pytest.raises(CookieError, match="RINGBRIDGE_COOKIE"):
        find_cookie(environ={"RINGBRIDGE_COOKIE": "", "HOME": str(tmp_path)})


def test_a_cookie_hides_itself() -> None:
    cookie = Cookie("very-secret")
    assert "very-secret" not in f"{cookie} {cookie!r} {vars(type(cookie))}"
    with pytest.raises(TypeError):
        pickle.dumps(cookie)


def test_a_digest_is_md5_of_cookie_and_decimal_challenge() -> None:
    cookie = Cookie("very-secret")
    digest = hashlib.md5(b"very-secret4294967295").digest()
    assert cookie.digest(2**32 - 1) == digest
    assert cookie.proves(digest, 2**32 - 1)
    assert not cookie.proves(digest[:-1], 2**32 - 1)
    assert not cookie.proves(digest, 1)


def test_a_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    cookie = Cookie("secret")
    assert cookie.proves(cookie.digest(7), 7)
    assert not cookie.proves(bytes(16), 7)
    assert len(compared) == 2
