"""The page: its sections, its data, its scripts, and the policy under which it runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import study_convergence
from dmlcore.analysis.findings import analysis_sentences, caveats
from dmlcore.analysis.meta_analysis import forests
from dmlcore.analysis.metric_labels import LEGEND, METRICS, metric_label
from dmlcore.analysis.protocol import environment, protocol_text, shared_settings
from dmlcore.analysis.study import CELL_COLUMNS, Study
from dmlcore.analysis.trajectories import EQUAL_ACCURACY
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.analysis.verdict import opis_metric, question, variant_verdicts, verdict
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.figures.forest import forest_figure
from dmlcore.report.html.charts import (
    heat_map_data,
    legend_entries,
    tradeoff_data,
    trajectories_data,
    utility_data,
)
from dmlcore.report.html.examples import examples_section
from dmlcore.report.html.tables import comparison_table, search_table, trial_table


def report_html(study: Study) -> str:
    """Write the page; the same study gives the same bytes.

    The browser runs a script only if the page's policy holds its SHA-256, so both scripts are embedded as they are
    hashed, and a name that smuggles in a script element runs nothing.
    """
    scripts = [get_plotlyjs(), _asset("report.js")]
    context = {"policy": content_policy(scripts), "scripts": [Markup(script) for script in scripts]}
    context |= {"style": Markup(_asset("report.css")), **_sections(study)}
    return templates().get_template("page.html.j2").render(context)


@cache
def templates() -> Environment:
    """Return the templates: they escape every value, and an unknown name in them is an error."""
    return Environment(
        loader=PackageLoader("dmlcore.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _sections(study: Study) -> dict[str, Any]:
    """Make one context a template, by the template's name, and the data of the script."""
    displayed, link = displayed_study(study), study.config.run_link
    rows, confidence = comparisons(displayed).to_dicts(), study.config.confidence
    tradeoff = tradeoff_data(displayed, opis_metric(rows), link)
    utility, utility_cut = utility_data(displayed)
    heat_maps = heat_map_data(study) if "margins" in study.config.parts else []
    examples = examples_section(displayed)
    paths = trajectories_data(displayed)
    data = {"tradeoff": tradeoff, "trajectories": paths, "utility": utility}
    data |= {"heat_maps": heat_maps, "map": examples["map"]}
    found = Counter(study.trials["status"].to_list())
    counts = {name: found[name] for name in ("finished", "failed", "stopped", "missing") if found[name]}
    return {
        "status": {"counts": counts, "convergence": study_convergence(displayed)},
        "headline": {
            "question": question(rows),
            "variants": variant_verdicts(rows, confidence),
            "no_comparison": verdict(displayed, rows)[0][0],
        },
        "tradeoff": {
            "datasets": sorted(set(displayed.trials["dataset"])),
            "filters": {name: sorted(set(displayed.trials[name])) for name in CELL_COLUMNS},
            "legend": legend_entries(displayed),
            "error_bars": tradeoff["bars"],
            "linked": link is not None,
        },
        "notes": {"caveats": caveats(displayed, rows), "findings": analysis_sentences(study)},
        "comparisons": {
            "table": comparison_table(rows, confidence),
            "metrics": {metric: metric_label(metric) for metric in METRICS},
            "reading": LEGEND,
        },
        "trajectories": EQUAL_ACCURACY if paths else "",
        "forest": _forest_picture(study),
        "utility": {"cut": utility_cut},
        "heat_maps": heat_maps,
        "examples": examples,
        "trials": {"table": trial_table(study, link), "searches": search_table(study, link)},
        "protocol": {
            "lines": protocol_text(study).splitlines(),
            "settings": shared_settings(study),
            "environment": environment(study),
        },
        "data": Markup(script_json(data)),
    }


def _forest_picture(study: Study) -> str:
    """Return the forest plot as an address that holds its bytes; empty for a study of few comparisons."""
    found = forests(study)
    if not found:
        return ""
    content = png_bytes(forest_figure(found, study.config.confidence), study.config.figure.dots_per_inch)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def script_json(value: Any) -> str:
    """Return JSON for a script element: it has no `<`, so nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_policy(scripts: Iterable[str]) -> str:
    """Return a content security policy that allows these scripts alone, by their hashes, and no network access."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (resources.files("dmlcore.report.html") / name).read_text(encoding="utf-8")
