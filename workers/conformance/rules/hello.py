"""Opening the link: what the worker says of itself, and which links it refuses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bridge.fabric import layout
from workers.conformance import language
from workers.conformance.bench import Bench, Chapter
from workers.conformance.jobs import (
    CODE_UNKNOWN_OPCODE,
    FAILED,
    Broke,
    NotHere,
    NotOffered,
    status_name,
)
from workers.conformance.peer import Peer
from workers.conformance.process import Worker, environment_of

CHAPTER = Chapter("Hello")
NOT_STARTED_BY_A_BRIDGE, REFUSED = 64, 78
TAKES = layout.TAKES_RAW | layout.TAKES_TERM | layout.TAKES_PARTS


def text(field: int | bytes, name: str) -> str:
    """A NUL-padded UTF-8 field."""
    assert isinstance(field, bytes)
    word, _, padding = field.partition(b"\0")
    if padding.strip(b"\0"):
        raise Broke(f"{name} is not padded with zeros: {field!r}")
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise Broke(f"{name} is not UTF-8: {word!r}") from None


@CHAPTER.rule(1, "the hello has the layout, the link's nonce, features, pid, kit and role")
def the_hello(bench: Bench) -> None:
    peer = bench.start(role="sea-routes", worker_id=12)
    hello = peer.hello()
    wanted: dict[str, int | bytes] = {
        "magic": layout.WORKER_MAGIC,
        "version": layout.LAYOUT_VERSION,
        "digest": layout.LAYOUT_DIGEST,
        "nonce": peer.link.nonce,
        "pid": peer.process.pid,
    }
    for name, value in wanted.items():
        if hello[name] != value:
            raise Broke(f"{name} is {hello[name]!r}, not {value!r}")
    if int(hello["features"]) & ~peer.plan.features:
        raise Broke(
            f"features {hello['features']!r} are more than {peer.plan.features}, the offered"
        )
    if not text(hello["kit"], "kit") or not hello["kit_version"]:
        raise Broke("the kit has no name or no version")
    if (role := text(hello["role"], "role")) != "sea-routes":
        raise Broke(f"role is {role!r}, not what the environment says")


@CHAPTER.rule(2, "started without a link it says so on stderr and leaves with 64")
def without_a_link(bench: Bench) -> None:
    named = environment_of(7, "none")
    for value in (None, "", "nine", "-1", "3"):  # of 3 there is no descriptor
        environment = {k: v for k, v in named.items() if k != layout.ENV_LINK_FD}
        if value is not None:
            environment[layout.ENV_LINK_FD] = value
        status, stderr = run(bench, {}, environment)
        if status != NOT_STARTED_BY_A_BRIDGE or not stderr.strip():
            raise Broke(
                f"with {layout.ENV_LINK_FD}={value!r} it ended with {status_name(status)} and "
                f"said {stderr.strip()!r}"
            )


def run(
    bench: Bench, inherited: Mapping[int, int], environment: Mapping[str, str]
) -> tuple[int, str]:
    """Start it on descriptors that are no link of ours; how it ended, and its stderr."""
    worker = Worker.start(bench.argv, inherited, environment)
    try:
        status = worker.wait(bench.patience_s)
        if status is None:
            raise Broke("it went on without a link")
        return status, worker.stderr
    finally:
        worker.close()


@CHAPTER.rule(3, "descriptors that are no link, or whose size is not sealed, are refused with 78")
def no_link(bench: Bench) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        status, _ = run(bench, {3: null, 4: null}, environment_of(7, "none"))
    finally:
        os.close(null)
    if status != REFUSED:
        raise Broke(f"with /dev/null for a link it ended with {status_name(status)}, not 78")
    expect_no_hello(bench.start(greet=False, sealed=False))


def expect_no_hello(peer: Peer) -> None:
    peer.expect_exit(REFUSED)
    if peer.hello()["hello"] == layout.HELLO_READY:
        raise Broke("it said READY before it left")


def expect_refusal(peer: Peer) -> None:
    """The worker has marked its hello REFUSED, told its own layout, and left with 78."""
    peer.expect_exit(REFUSED)
    hello = peer.hello()
    if hello["hello"] != layout.HELLO_REFUSED:
        raise Broke(f"the hello is {hello['hello']!r} and not {layout.HELLO_REFUSED} (refused)")
    if hello["digest"] != layout.LAYOUT_DIGEST or hello["version"] != layout.LAYOUT_VERSION:
        raise Broke("a refusal does not name the worker's own layout")
    if hello["magic"] != layout.WORKER_MAGIC:
        raise Broke("a refusal has no magic")
    if not peer.process.stderr.strip():
        raise Broke("it refused without a word on stderr")
    if not peer.gate.rings():
        raise Broke("it refused without ringing descriptor 7")


def expect_digests_named(peer: Peer, theirs: bytes) -> None:
    expect_refusal(peer)
    stderr = peer.process.stderr
    if layout.LAYOUT_DIGEST_HEX not in stderr or theirs.hex() not in stderr:
        raise Broke(f"stderr does not name both digests: {stderr.strip()!r}")


OTHER_DIGEST = bytes(byte ^ 0x55 for byte in layout.LAYOUT_DIGEST)


@CHAPTER.rule(4, "a link of this version with another digest is refused, both digests on stderr")
def another_digest(bench: Bench) -> None:
    expect_digests_named(bench.start(greet=False, lies={"digest": OTHER_DIGEST}), OTHER_DIGEST)


@CHAPTER.rule(5, "a link of another major version is refused, both digests on stderr")
def another_major(bench: Bench) -> None:
    for version in (layout.LAYOUT_VERSION + (1 << 16), layout.LAYOUT_VERSION - (1 << 16)):
        lies: dict[str, int | bytes] = {"digest": OTHER_DIGEST, "version": version}
        expect_digests_named(bench.start(greet=False, lies=lies), OTHER_DIGEST)


@CHAPTER.rule(6, "a link of a newer minor version is accepted: the newer side judges")
def a_newer_minor(bench: Bench) -> None:
    lies: dict[str, int | bytes] = {"digest": OTHER_DIGEST, "version": layout.LAYOUT_VERSION + 1}
    peer = bench.start(greet=False, lies=lies)
    hello = peer.greet()
    if hello["version"] != layout.LAYOUT_VERSION or hello["digest"] != layout.LAYOUT_DIGEST:
        raise Broke("the hello does not have the worker's own version and digest")
    peer.expect(peer.submit(language.ECHO, b"minor"), payload=b"minor")


@CHAPTER.rule(7, "a link of an older minor version is refused unless its digest is known")
def an_older_minor(bench: Bench) -> None:
    if layout.LAYOUT_VERSION & 0xFFFF == 0:
        raise NotHere("this layout is the first minor version of its major")
    lies: dict[str, int | bytes] = {"digest": OTHER_DIGEST, "version": layout.LAYOUT_VERSION - 1}
    expect_digests_named(bench.start(greet=False, lies=lies), OTHER_DIGEST)


PAGE = layout.PAGE_BYTES
# What each header lies about; the memory itself is as a LinkPlan makes it.
LIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no nonce", {"lies": {"nonce": 0}}),
    ("48 slots", {"slots": 48}),
    ("1 slot", {"slots": 1}),
    ("131072 slots", {"slots": 131072}),
    ("blocks of 2048 bytes", {"result_block_bytes": 2048}),
    ("3 result blocks", {"result_bytes": 3 * PAGE}),
    ("another number of result blocks", {"lies": {"result_blocks": 128}}),
    ("requests elsewhere", {"lies": {"requests_at": 24576}}),
    ("results elsewhere", {"lies": {"results_at": 1 << 20}}),
    ("give-backs elsewhere", {"lies": {"givebacks_at": PAGE}}),
    ("a relay side of another size", {"lies": {"relay_side_bytes": 1 << 20}}),
    ("a worker side of another size", {"lies": {"worker_side_bytes": 1 << 20}}),
    ("a relay side that is longer than told", {"extra_bytes": {"relay": PAGE}}),
    ("a worker side that is longer than told", {"extra_bytes": {"worker": PAGE}}),
    ("a pool that is longer than told", {"extra_bytes": {"pool": PAGE}}),
    ("no pool where one lies", {"lies": {"pool_bytes": 0}}),
)


@CHAPTER.rule(8, "a header that breaks a rule of the layout is refused")
def a_broken_header(bench: Bench) -> None:
    for what, plan in LIES:
        peer = bench.start(greet=False, **plan)
        try:
            expect_refusal(peer)
        except Broke as error:
            raise Broke(f"{what}: {error}") from None
        bench.close()


@CHAPTER.rule(9, "the operations that it declares are well formed, and the job language's own")
def well_formed_operations(bench: Bench) -> None:
    for opcode, (name, _) in declared_operations(bench.start()).items():
        if opcode < len(language.NAMES) and language.NAMES[opcode] != name:
            raise Broke(f"opcode {opcode} is called {name!r}, not {language.NAMES[opcode]!r}")


def declared_operations(peer: Peer) -> dict[int, tuple[str, int]]:
    """Name and takes of each opcode that its hello has."""
    count = int(peer.hello()["ops"])
    if count == 0:
        raise NotOffered("it declares no operations")
    if count > layout.OPS_MAX:
        raise Broke(f"{count} operations are declared, {layout.OPS_MAX} have room")
    declared: dict[int, tuple[str, int]] = {}
    for i in range(count):
        at = layout.AT_OPS + i * layout.WORKER_OP.size
        raw = peer.link.worker.read(at, layout.WORKER_OP.size)
        opcode, takes, name = layout.WORKER_OP.format.unpack(raw)
        if opcode in declared or takes & ~TAKES:
            raise Broke(f"operation {i}: opcode {opcode} is declared twice, or takes {takes:#x}")
        declared[opcode] = text(name, f"the name of operation {i}"), takes
    names = {name for name, _ in declared.values()}
    if len(names) != count or "" in names:
        raise Broke(f"operations without names of their own: {declared}")
    return declared


RAW, TERM, PARTS = layout.TAKES_RAW, layout.TAKES_TERM, layout.TAKES_PARTS
# What each operation takes, all others raw bytes; one that declares neither form takes both.
TAKEN = {language.ECHO: RAW | TERM, language.TERM: TERM, language.EMIT: RAW | PARTS}


@CHAPTER.rule(140, "it declares each operation that it serves, and what that takes")
def complete_operations(bench: Bench) -> None:
    peer = bench.start()
    declared = declared_operations(peer)
    for opcode, name in enumerate(language.NAMES):
        if opcode in declared:
            _, takes = declared[opcode]
            right = TAKEN.get(opcode, RAW)
            if takes not in (right, right & PARTS):
                raise Broke(f"operation {name} is declared to take {takes:#x}")
            continue
        answer = peer.expect_any(peer.submit(opcode, b"?"))
        if answer.status != FAILED or answer.code != CODE_UNKNOWN_OPCODE:
            raise Broke(f"operation {name} is not declared, and is answered {answer}")
