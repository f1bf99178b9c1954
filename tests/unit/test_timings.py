"""How long steps take: counted, named, added up."""

from __future__ import annotations

import pytest

from pipelinejob.timings import BOUNDS, PLANES, READ, WHOLE, WRITE, Stopwatch, Timing, shares, step_name


class Clock:
    """Stands still but for its own sleep()."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("pipelinejob.timings.time", clock)
    return clock


def test_a_step_lasts_until_the_next_one_begins(time: Clock) -> None:
    watch = Stopwatch()
    for step, seconds in ((READ, 0.03), (0, 0.002), (WRITE, 0.0), (READ, 0.03)):
        watch.step(step)
        time.sleep(seconds)
    watch.rest()
    time.sleep(0.05)  # of nobody
    found = {(one.position, one.bucket): one for one in watch.stop()}
    read = found[READ, next(index for index, bound in enumerate(BOUNDS) if bound >= 0.03)]
    assert read.calls == 2 and read.seconds == pytest.approx(0.06)
    assert sum(one.calls for one in found.values()) == 5
    whole = next(one for one in found.values() if one.position == WHOLE)
    assert whole.calls == 1 and whole.seconds == pytest.approx(0.112)


def test_what_was_in_vain_is_not_counted_and_the_step_before_goes_on(time: Clock) -> None:
    watch = Stopwatch()
    watch.step(READ)
    time.sleep(0.03)
    watch.step(PLANES)
    watch.resume()
    time.sleep(0.05)
    watch.step(0)
    found = [one for one in watch.stop() if one.position != WHOLE]
    assert [(one.position, one.calls) for one in found] == [(READ, 1), (0, 1)]
    assert found[0].bucket == 5 and found[0].seconds == pytest.approx(0.08)


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (BOUNDS[0], 0), (BOUNDS[0] * 1.01, 1), (1.0, 6), (256.0, 10), (257.0, 11)])
def test_a_call_is_in_the_first_bucket_that_it_does_not_exceed(seconds: float, bucket: int) -> None:
    watch = Stopwatch()
    watch._add(0, seconds)
    assert watch.stop()[1] == Timing(0, bucket, 1, round(seconds, 6))


def test_shares_are_of_all_but_the_batches_themselves() -> None:
    timings = [
        Timing(READ, 3, 10, 1.0),
        Timing(READ, 5, 2, 1.0),
        Timing(0, 2, 12, 5.0),
        Timing(WRITE, 3, 11, 3.0),
        Timing(WHOLE, 6, 1, 99.0),
    ]
    found = shares(timings, ["crop"])
    assert [(one.step, one.share, one.calls) for one in found] == [("(read)", 0.2, 12), ("crop", 0.5, 12), ("(write)", 0.3, 11)]
    assert found[1].mean == pytest.approx(5 / 12) and shares([], ["crop"]) == []
    assert step_name(PLANES, ["random_crop", "resize"]) == "random_crop + resize"
