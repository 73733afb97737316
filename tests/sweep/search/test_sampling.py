"""What a search suggestions for next and which settings are best, on records that were never trained."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from dmlcore.config.search import ParameterConfig
from dmlcore.sweep.search.log import Suggestion
from dmlcore.sweep.search.sampling import choose, knee, next_setting, pareto_front
from tests.sweep.search.searches import MAP, OPIS, record_of, search_of, suggestion_of

SPACE = {
    "rate": ParameterConfig(low=1.0e-5, high=1.0e-1, log=True),
    "epochs": ParameterConfig(low=2, high=9),
    "pooling": ParameterConfig(values=("average", "gem")),
}


def asked(search, space, count, outcome):
    """A search of `count` settings, each with the record that `outcome(number, params)` gives."""
    suggestions, records = [], {}
    for number in range(count):
        params, noted = next_setting(space, search, suggestions, records)
        suggestions.append(Suggestion(number=number, params=params, trial_key=f"k{number}", attributes=noted))
        record = outcome(number, params)
        if record is not None:
            records[f"k{number}"] = record
    return suggestions, records


def good(number, params):
    return record_of(f"k{number}", map_at_r=1.0 - abs(np.log10(params["rate"]) + 3.0), opis=params["epochs"])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("objectives", [(MAP,), (MAP, OPIS)])
def test_the_next_setting_is_decided_by_what_is_on_disk(sampler, objectives):
    search = search_of(sampler=sampler, objectives=objectives, startup=4)
    suggestions, records = asked(search, SPACE, 14, good)
    for count in (0, 1, 5, 13):
        copied = [
            Suggestion.model_validate_json(suggestion.model_dump_json()) for suggestion in suggestions[:count]
        ]
        known = {key: records[key] for key in [suggestion.trial_key for suggestion in copied]}
        params, noted = next_setting(SPACE, search, copied, known)
        assert (params, noted) == (suggestions[count].params, suggestions[count].attributes)


def test_values_keep_to_their_space_and_to_four_digits():
    suggestions, _ = asked(search_of(), SPACE, 30, good)
    for suggestion in suggestions:
        assert 1.0e-5 <= suggestion.params["rate"] <= 1.0e-1
        assert suggestion.params["rate"] == float(f"{suggestion.params['rate']:.4g}")
        assert isinstance(suggestion.params["epochs"], int)
        assert suggestion.params["epochs"] in range(2, 10)
    assert {suggestion.params["pooling"] for suggestion in suggestions} == {"average", "gem"}


def test_tpe_learns_where_to_look():
    def distance(sampler):
        searches = [asked(search_of(sampler=sampler, seed=seed), SPACE, 40, good)[0] for seed in range(3)]
        rates = [suggestion.params["rate"] for suggestions in searches for suggestion in suggestions[20:]]
        return statistics.mean(abs(np.log10(rate) + 3.0) for rate in rates)

    assert distance("tpe") < 0.7 * distance("random")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_variants_begin_alike_in_what_they_share(sampler):
    search = search_of(sampler=sampler)
    more = SPACE | {"regularizers.tcm.params.positive_margin": ParameterConfig(low=0.6, high=0.9)}
    baseline, _ = asked(search, SPACE, 6, good)
    tcm, _ = asked(search, more, 6, lambda number, params: record_of(f"k{number}", map_at_r=0.1, opis=0.1))
    assert [suggestion.params for suggestion in baseline] == [
        {k: suggestion.params[k] for k in SPACE} for suggestion in tcm
    ]
    other, _ = asked(search_of(sampler=sampler, seed=1), SPACE, 6, good)
    assert all(a.params != b.params for a, b in zip(baseline, other, strict=True))


@pytest.mark.parametrize("objectives", [(MAP,), (MAP, OPIS)])
def test_running_stopped_failed_and_refused_asks_are_no_obstacle(objectives):
    search = search_of(objectives=objectives, startup=2)
    suggestions, records = asked(search, SPACE, 4, good)
    suggestions += [
        suggestion_of(4, **suggestions[0].params),  # running
        suggestion_of(5, **suggestions[1].params),
        suggestion_of(6, **suggestions[2].params),
        suggestion_of(7, **suggestions[3].params),
        Suggestion(number=8, params=suggestions[0].params, refused="no"),
    ]
    records |= {
        "k5": record_of("k5", "stopped", map_at_r=0.3, opis=0.1),
        "k6": record_of("k6", "failed"),
        "k7": record_of("k7", map_at_r=0.9, opis=None) if len(objectives) > 1 else record_of("k7"),
    }
    params, _ = next_setting(SPACE, search, suggestions, records)
    assert params.keys() == SPACE.keys()
    assert all(suggestion.number < 4 for suggestion in pareto_front(SPACE, search, suggestions, records))


def test_the_front_is_what_none_beats_in_both():
    random = np.random.default_rng(0)
    values = np.round(random.uniform(0, 1, (40, 2)), 1)  # rounded, so that there are ties
    suggestions = [suggestion_of(number, x=0.5) for number in range(len(values))]
    records = {f"k{n}": record_of(f"k{n}", map_at_r=m, opis=o) for n, (m, o) in enumerate(values)}
    found = pareto_front(
        {"x": ParameterConfig(low=0.0, high=1.0)}, search_of(objectives=(MAP, OPIS)), suggestions, records
    )
    naive = [
        (m, o)
        for m, o in values.tolist()
        if not any((a >= m and b <= o) and (a > m or b < o) for a, b in values.tolist())
    ]
    assert {tuple(values[suggestion.number].tolist()) for suggestion in found} == set(naive)
    assert len(found) == len(set(naive))
    assert found[0].number == min(range(40), key=lambda n: (-values[n][0], values[n][1], n))


def test_the_second_objective_may_choose():
    suggestions = [suggestion_of(number, x=0.5) for number in range(3)]
    records = {
        f"k{n}": record_of(f"k{n}", map_at_r=m, opis=o)
        for n, (m, o) in enumerate([(0.5, 0.02), (0.6, 0.03), (0.4, 0.01)])
    }
    space = {"x": ParameterConfig(low=0.0, high=1.0)}
    by_map, by_opis = (
        pareto_front(space, search_of(objectives=(MAP, OPIS), choose=choose), suggestions, records)
        for choose in (None, OPIS)
    )
    assert [suggestion.number for suggestion in by_map] == [1, 0, 2]
    assert [suggestion.number for suggestion in by_opis] == [2, 0, 1]


def naive_knee(points):
    """The distance of each point to the line through the ends, by the triangle's area, on axes scaled to 0..1."""
    xy = np.array(points, dtype=float)
    xy = (xy - xy.min(0)) / (xy.max(0) - xy.min(0))
    start, end = xy[xy[:, 0].argmin()], xy[xy[:, 0].argmax()]
    along = end - start
    distances = []
    for x, y in xy:
        cross = along[0] * (start[1] - y) - (start[0] - x) * along[1]
        distances.append(cross / np.hypot(*along))
    return int(np.argmax(distances)) if max(distances) > 1e-9 else None


def test_the_knee_is_farthest_from_the_line_between_the_ends():
    random = np.random.default_rng(0)
    for _ in range(50):
        x = np.sort(random.uniform(0, 5, 7))
        y = np.sort(random.uniform(0, 0.01, 7))[::-1]
        points = list(zip(x, y, strict=True))
        assert knee(points) == naive_knee(points)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.0, 4.0), (1.0, 1.0), (4.0, 0.0)], 1),
        ([(0.0, 4.0), (3.9, 3.9), (4.0, 0.0)], None),  # bulges away from the ideal corner
        ([(0.0, 4.0), (2.0, 2.0), (4.0, 0.0)], None),
        ([(0.0, 4.0), (4.0, 0.0)], None),
        ([(0.0, 4.0)], None),
    ],
)
def test_a_front_without_a_bulge_has_no_knee(points, expected):
    assert knee(points) == expected


FRONT = [(0.60, 0.040), (0.58, 0.020), (0.50, 0.015), (0.40, 0.014)]


def chosen_of(best=None, **search):
    suggestions = [suggestion_of(number, x=0.5) for number in range(4)]
    records = {f"k{n}": record_of(f"k{n}", map_at_r=m, opis=o) for n, (m, o) in enumerate(FRONT)}
    config = search_of(objectives=(MAP, OPIS), **search)
    front = pareto_front({"x": ParameterConfig(low=0.0, high=1.0)}, config, suggestions, records)
    choice = choose(front, config, records, best)
    assert sorted(s.number for s in choice.front) == [0, 1, 2, 3]
    return choice.front[0].number, choice.rule


def test_a_rule_chooses_from_the_front():
    assert chosen_of() == (0, f"best {MAP}")
    assert chosen_of(choose=OPIS) == (3, f"best {OPIS}")
    assert chosen_of(choose="knee") == (1, "knee of a front of 4")
    rule = {"choose": "no_accuracy_loss"}
    assert chosen_of(best=0.58, **rule)[0] == 1
    assert chosen_of(best=0.5801, **rule)[0] == 0
    assert chosen_of(best=0.58, accuracy_loss=0.2, **rule)[0] == 2
    assert chosen_of(**rule)[0] == 0


def test_where_no_setting_keeps_the_accuracy_the_most_accurate_is_chosen_and_said():
    number, rule = chosen_of(best=0.7, choose="no_accuracy_loss")
    assert number == 0
    assert rule == f"no setting has {MAP} of at least 0.7000 (the baseline's best), so best {MAP}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose": "knee"}, "one to maximise and one to minimise"),
        ({"choose": "no_accuracy_loss", "objectives": (OPIS, "validation/epsilon_opis")}, "one to maximise"),
        ({"choose": "best"}, "must be one of the objectives"),
        ({"accuracy_loss": 0.1}, "remove it"),
    ],
)
def test_a_rule_that_the_objectives_cannot_serve_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        search_of(**changes)


def test_of_equals_the_earliest_is_chosen():
    suggestions = [suggestion_of(number, x=0.5) for number in range(3)]
    records = {f"k{n}": record_of(f"k{n}", map_at_r=0.5 if n else 0.1) for n in range(3)}
    found = pareto_front({"x": ParameterConfig(low=0.0, high=1.0)}, search_of(), suggestions, records)
    assert [suggestion.number for suggestion in found] == [1]
