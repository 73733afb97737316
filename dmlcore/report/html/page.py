"""The page: its sections, its data, its scripts, and the policy under which it runs."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import study_convergence
from dmlcore.analysis.metric_labels import LEGEND, METRICS, metric_label
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import CELL_COLUMNS, Study
from dmlcore.analysis.verdict import caveats
from dmlcore.report.extra_analyses import analysis_sentences, displayed_study
from dmlcore.report.html.answer import answers, inconsistency, no_answer, question
from dmlcore.report.html.classes import class_table
from dmlcore.report.html.curves import utility_cut, utility_data
from dmlcore.report.html.environment import environment, shared_settings
from dmlcore.report.html.escaping import content_policy, script_json
from dmlcore.report.html.grids import heat_map_data
from dmlcore.report.html.images import open_pictures
from dmlcore.report.html.projection import map_data
from dmlcore.report.html.queries import query_table
from dmlcore.report.html.stored import stored_pair
from dmlcore.report.html.tradeoff import legend_entries, tradeoff_data
from dmlcore.report.html.trials import comparison_table, search_table, trial_table


def report_html(study: Study) -> str:
    """The whole page; the same study gives the same bytes."""
    scripts = [get_plotlyjs(), _file("report.js")]
    pages = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.from_string(_file("report.html.j2")).render(
        pairs=lambda names: [(name, name) for name in names],
        policy=content_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_file("report.css")),
        **_sections(study),
    )


def _sections(study: Study) -> dict[str, Any]:
    shown, link = displayed_study(study), study.config.run_link
    rows, confidence = comparisons(shown).to_dicts(), study.config.confidence
    looked, closer = _closer_look(shown)
    data = {
        "tradeoff": tradeoff_data(shown, inconsistency(rows), link),
        "utility": utility_data(shown),
        "grids": heat_map_data(study) if "margins" in study.config.parts else [],
        "map": looked.pop("map"),
    }
    return looked | {
        "question": question(rows),
        "answers": answers(rows, confidence),
        "no_answer": no_answer(rows, confidence),
        "counts": _counts(study),
        "converged": study_convergence(shown),
        "legend": legend_entries(shown),
        "utility_cut": utility_cut(shown),
        "bars": data["tradeoff"]["bars"],
        "linked": link is not None,
        "datasets": sorted(set(shown.trials["dataset"])),
        "filters": {name: sorted(set(shown.trials[name])) for name in CELL_COLUMNS},
        "metrics": {metric: metric_label(metric) for metric in METRICS},
        "comparisons": comparison_table(rows, confidence),
        "trials": trial_table(study, link),
        "searches": search_table(study, link),
        "caveats": caveats(shown, rows),
        "findings": analysis_sentences(study),
        "reading": LEGEND,
        "grids": data["grids"],
        "closer": closer,
        "protocol": protocol_text(study).splitlines(),
        "settings": shared_settings(study),
        "environment": environment(study),
        "data": Markup(script_json(data)),
    }


def _closer_look(study: Study) -> tuple[dict[str, Any], str]:
    """Classes, queries and the map of the stored pair, and the sentence that says which it is or why it is missing."""
    pair = stored_pair(study)
    if isinstance(pair, str):
        return {"classes": None, "queries": None, "map": None}, pair
    pictures = open_pictures(study, pair)
    found = {"classes": class_table(pair, pictures), "queries": query_table(pair, pictures)}
    which = f"Of one pair of trials, the most accurate configuration: {pair.text}. {pictures.missing or ''}".strip()
    return found | {"map": map_data(pair, pictures)}, which


def _counts(study: Study) -> list[tuple[str, int]]:
    found = Counter(study.trials["status"].to_list())
    return [
        (status, found[status]) for status in ("finished", "failed", "stopped", "missing") if found[status]
    ]


def _file(name: str) -> str:
    return (resources.files("dmlcore.report.html") / name).read_text(encoding="utf-8")
