"""The driver's word to end a trial, on a shared disk and through an exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmlcore.tuning.exchange import Exchange
from dmlcore.tuning.verdicts import Verdicts
from dmlcore.tuning.worker import StoppedEarlyError
from tests.tuning.search.test_halving import trial


@pytest.fixture(params=["disk", "exchange"])
def verdicts(request, tmp_path):
    return Verdicts(tmp_path, Exchange(tmp_path.as_uri()) if request.param == "exchange" else None)


def test_a_word_ends_its_trial_once(verdicts):
    verdicts.obey(trial(0))
    verdicts.leave(trial(0), "rung 1")
    verdicts.obey(trial(1))
    with pytest.raises(StoppedEarlyError, match="rung 1"):
        verdicts.obey(trial(0))
    verdicts.obey(trial(0))


def test_a_word_to_an_earlier_attempt_is_forgotten(verdicts):
    verdicts.leave(trial(0), "rung 1")
    verdicts.clear(trial(0))
    verdicts.obey(trial(0))


def test_a_trial_that_runs_whole_does_not_ask(verdicts):
    whole = trial(0, rivals=None)
    verdicts.leave(whole, "rung 1")
    verdicts.obey(whole)
    assert replace(whole, cell=trial(0).cell).key == whole.key
    with pytest.raises(StoppedEarlyError):
        verdicts.obey(trial(0))
