"""The promise of term_check.h: a BEAM takes what it accepts, and it accepts what a BEAM writes."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from random_terms import STOCK, Terms, mutated, pairs
from term_check_subjects import Beam, Check, beam, releases

pytestmark = [
    pytest.mark.beam,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not releases(), reason="no erl on PATH"),
]

BATCH = 1000


@pytest.fixture(scope="module", params=releases() or [""], ids=lambda erl: erl.lstrip("/"))
def judge(request: pytest.FixtureRequest) -> Iterator[Beam]:
    with beam(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    return Check(tmp_path_factory.mktemp("term_check"))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_takes_all_that_the_check_accepts(judge: Beam, check: Check, seed: int) -> None:
    random = Random(seed)
    terms = Terms(random, plain=False)
    verdicts: Counter[str] = Counter()
    for _ in range(3):
        answers = []
        for _ in range(BATCH):
            request = terms.term()
            answer = mutated(request, random) if random.random() < 0.7 else request
            verdict = check.verdict(answer, request)
            verdicts[verdict or "accepted"] += 1
            if verdict is None:
                answers.append(answer)
        for answer, taken in zip(answers, judge.judge(answers), strict=True):
            assert taken is not None, answer.hex(" ")
    # Else the generator, not the check, would be what is tested.
    assert verdicts["accepted"] > BATCH / 2
    assert {"term_map_key", "term_cut_short", "term_tag", "term_identity"} <= verdicts.keys()


@pytest.mark.parametrize("seed", range(4))
def test_no_two_keys_that_the_check_accepts_are_one_for_a_beam(
    judge: Beam, check: Check, seed: int
) -> None:
    random = Random(1000 + seed)
    terms = Terms(random, plain=False)
    accepted, refused = [], 0
    for _ in range(BATCH):
        answer = terms.colliding_map(1)
        if check.verdict(answer, answer) is None:
            accepted.append(answer)
        else:
            refused += 1
    for answer, taken in zip(accepted, judge.judge(accepted), strict=True):
        assert taken is not None, answer.hex(" ")
    assert len(accepted) > 20
    assert refused > 20


def test_no_pair_of_the_stock_of_keys_fools_the_check(judge: Beam, check: Check) -> None:
    """Every pair: accepted only where the BEAM sees two keys."""
    both = [pairs([(one, b"j"), (two, b"j")]) for one in STOCK for two in STOCK]
    accepted = [answer for answer in both if check.verdict(answer, answer) is None]
    for answer, taken in zip(accepted, judge.judge(accepted), strict=True):
        assert taken is not None, answer.hex(" ")
    assert len(both) > 5000
    assert len(accepted) > 500


@pytest.mark.parametrize("seed", range(3))
def test_the_check_accepts_what_a_beam_writes(judge: Beam, check: Check, seed: int) -> None:
    """Also with the Latin-1 atoms that term_to_binary of OTP 25 writes unless told otherwise."""
    terms = Terms(Random(2000 + seed), plain=True)
    for taken in judge.judge([terms.term() for _ in range(BATCH)]):
        assert taken is not None
        for answer in taken:
            assert check.verdict(answer, answer) is None, answer.hex(" ")
