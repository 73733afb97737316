"""What a search asks for next and which settings are best, on records that were never trained."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from dmlcore.config.sweep import ParameterConfig
from dmlcore.sweep.search.log import Ask
from dmlcore.sweep.search.sampling import front, next_setting
from tests.sweep.search.searches import MAP, OPIS, ask_of, record_of, search_of

SPACE = {
    "rate": ParameterConfig(low=1.0e-5, high=1.0e-1, log=True),
    "epochs": ParameterConfig(low=2, high=9),
    "pooling": ParameterConfig(values=("average", "gem")),
}


def asked(search, space, count, outcome):
    """A search of `count` settings, each with the record that `outcome(number, params)` gives."""
    asks, records = [], {}
    for number in range(count):
        params, noted = next_setting(space, search, asks, records)
        asks.append(Ask(number=number, params=params, trial_key=f"k{number}", attributes=noted))
        record = outcome(number, params)
        if record is not None:
            records[f"k{number}"] = record
    return asks, records


def good(number, params):
    return record_of(f"k{number}", map_at_r=1.0 - abs(np.log10(params["rate"]) + 3.0), opis=params["epochs"])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("objectives", [(MAP,), (MAP, OPIS)])
def test_the_next_setting_is_decided_by_what_is_on_disk(sampler, objectives):
    search = search_of(sampler=sampler, objectives=objectives, startup=4)
    asks, records = asked(search, SPACE, 14, good)
    for count in (0, 1, 5, 13):
        copied = [Ask.model_validate_json(ask.model_dump_json()) for ask in asks[:count]]
        known = {key: records[key] for key in [ask.trial_key for ask in copied]}
        params, noted = next_setting(SPACE, search, copied, known)
        assert (params, noted) == (asks[count].params, asks[count].attributes)


def test_values_keep_to_their_space_and_to_four_digits():
    asks, _ = asked(search_of(), SPACE, 30, good)
    for ask in asks:
        assert 1.0e-5 <= ask.params["rate"] <= 1.0e-1
        assert ask.params["rate"] == float(f"{ask.params['rate']:.4g}")
        assert isinstance(ask.params["epochs"], int)
        assert ask.params["epochs"] in range(2, 10)
    assert {ask.params["pooling"] for ask in asks} == {"average", "gem"}


def test_tpe_learns_where_to_look():
    def distance(sampler):
        searches = [asked(search_of(sampler=sampler, seed=seed), SPACE, 40, good)[0] for seed in range(3)]
        rates = [ask.params["rate"] for asks in searches for ask in asks[20:]]
        return statistics.mean(abs(np.log10(rate) + 3.0) for rate in rates)

    assert distance("tpe") < 0.7 * distance("random")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_variants_begin_alike_in_what_they_share(sampler):
    search = search_of(sampler=sampler)
    more = SPACE | {"regularizers.tcm.params.positive_margin": ParameterConfig(low=0.6, high=0.9)}
    baseline, _ = asked(search, SPACE, 6, good)
    tcm, _ = asked(search, more, 6, lambda number, params: record_of(f"k{number}", map_at_r=0.1, opis=0.1))
    assert [ask.params for ask in baseline] == [{k: ask.params[k] for k in SPACE} for ask in tcm]
    other, _ = asked(search_of(sampler=sampler, seed=1), SPACE, 6, good)
    assert all(a.params != b.params for a, b in zip(baseline, other, strict=True))


@pytest.mark.parametrize("objectives", [(MAP,), (MAP, OPIS)])
def test_running_stopped_failed_and_refused_asks_are_no_obstacle(objectives):
    search = search_of(objectives=objectives, startup=2)
    asks, records = asked(search, SPACE, 4, good)
    asks += [
        ask_of(4, **asks[0].params),  # running
        ask_of(5, **asks[1].params),
        ask_of(6, **asks[2].params),
        ask_of(7, **asks[3].params),
        Ask(number=8, params=asks[0].params, refused="no"),
    ]
    records |= {
        "k5": record_of("k5", "stopped", map_at_r=0.3, opis=0.1),
        "k6": record_of("k6", "failed"),
        "k7": record_of("k7", map_at_r=0.9, opis=None) if len(objectives) > 1 else record_of("k7"),
    }
    params, _ = next_setting(SPACE, search, asks, records)
    assert params.keys() == SPACE.keys()
    assert all(ask.number < 4 for ask in front(SPACE, search, asks, records))


def test_the_front_is_what_none_beats_in_both():
    random = np.random.default_rng(0)
    values = np.round(random.uniform(0, 1, (40, 2)), 1)  # rounded, so that there are ties
    asks = [ask_of(number, x=0.5) for number in range(len(values))]
    records = {f"k{n}": record_of(f"k{n}", map_at_r=m, opis=o) for n, (m, o) in enumerate(values)}
    found = front({"x": ParameterConfig(low=0.0, high=1.0)}, search_of(objectives=(MAP, OPIS)), asks, records)
    naive = [
        (m, o)
        for m, o in values.tolist()
        if not any((a >= m and b <= o) and (a > m or b < o) for a, b in values.tolist())
    ]
    assert {tuple(values[ask.number].tolist()) for ask in found} == set(naive)
    assert len(found) == len(set(naive))
    assert found[0].number == min(range(40), key=lambda n: (-values[n][0], values[n][1], n))


def test_the_second_objective_may_choose():
    asks = [ask_of(number, x=0.5) for number in range(3)]
    records = {
        f"k{n}": record_of(f"k{n}", map_at_r=m, opis=o)
        for n, (m, o) in enumerate([(0.5, 0.02), (0.6, 0.03), (0.4, 0.01)])
    }
    space = {"x": ParameterConfig(low=0.0, high=1.0)}
    by_map, by_opis = (
        front(space, search_of(objectives=(MAP, OPIS), choose=choose), asks, records)
        for choose in (None, OPIS)
    )
    assert [ask.number for ask in by_map] == [1, 0, 2]
    assert [ask.number for ask in by_opis] == [2, 0, 1]


def test_of_equals_the_earliest_is_chosen():
    asks = [ask_of(number, x=0.5) for number in range(3)]
    records = {f"k{n}": record_of(f"k{n}", map_at_r=0.5 if n else 0.1) for n in range(3)}
    found = front({"x": ParameterConfig(low=0.0, high=1.0)}, search_of(), asks, records)
    assert [ask.number for ask in found] == [1]
