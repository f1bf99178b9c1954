"""Who may put itself into the Lease: decided without anybody's clock but our own."""

from __future__ import annotations

from typing import Any

import pytest

from pipelinejob_operator import lease
from pipelinejob_operator.lease import may_write

OTHER = {"holderIdentity": "b", "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"}


@pytest.mark.parametrize(
    ("spec", "unchanged", "leads", "answer"),
    [
        (None, 0, False, True),
        ({**OTHER, "holderIdentity": ""}, 0, False, True),
        ({}, 0, False, True),
        (OTHER, 0, False, False),  # however old its renewTime is
        (OTHER, 15, False, False),
        (OTHER, 15.1, False, True),
        ({**OTHER, "leaseDurationSeconds": 60}, 59, False, False),
        ({**OTHER, "holderIdentity": "a"}, 0, False, True),  # our container before this one
        ({**OTHER, "holderIdentity": "a"}, 0, True, True),
        (OTHER, 1000, True, False),  # lost: another epoch is needed
        ({**OTHER, "holderIdentity": ""}, 0, True, False),
        (None, 0, True, False),
    ],
)
def test_who_may_take_or_renew(spec: dict[str, Any] | None, unchanged: float, leads: bool, answer: bool) -> None:
    assert may_write(spec, "a", unchanged, leads) is answer


def test_a_leader_stops_before_a_standby_may_begin() -> None:
    assert lease.RENEW < lease.DEADLINE < lease.DURATION


def test_a_write_whose_answer_was_lost_is_known_again() -> None:
    ours = {"holderIdentity": "a", "renewTime": "2026-11-01T12:00:00.000001Z", "leaseDurationSeconds": 15}
    assert lease._is_written({**ours, "leaseTransitions": 3}, ours)
    assert not lease._is_written({**ours, "renewTime": "2026-11-01T11:59:57.000001Z"}, ours)  # as it was before
    assert not lease._is_written({**ours, "holderIdentity": "b"}, ours)
