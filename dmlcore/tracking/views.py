"""The saved view that each experiment starts with: accuracy against OPIS, averaged over the seeds of a comparison.

MLflow keeps the views of an experiment as its tags; its own page writes and reads them in this form (MLflow 3.17).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

TAG = "mlflow.sharedViewState.accuracy_against_opis"
NAME = "Accuracy against OPIS"
LABELS = ("arm", "loss", "backbone", "dataset")
"""Tags that tell one comparison's arm from another; what differs most stands first, since the page cuts long names."""
METRICS = tuple(
    f"test/{name}" for name in ("map_at_r", "recall_at_1", "opis", "opis_corrected", "opis_validation_range")
)
RUN_NAME = "attributes.`Run Name`"


def saved_view() -> str:
    """The value of the experiment tag TAG."""
    state = base64.b64encode(zlib.compress(json.dumps(_state()).encode())).decode()
    return json.dumps({"name": NAME, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{state}"})


def _state() -> dict[str, Any]:
    labels = [f"tags.`{label}`" for label in LABELS]
    metrics = [f"metrics.`{metric}`" for metric in METRICS]
    seed = "tags.`seed`"
    return {
        "orderByKey": "metrics.`test/opis_corrected`",
        "orderByAsc": True,
        "selectedColumns": [*metrics, *labels, seed],
        "columnOrder": [RUN_NAME, *metrics, *labels, seed],
        "columnWidths": {
            RUN_NAME: 480,
            **dict.fromkeys(metrics, 150),
            **dict.fromkeys(labels, 110),
            seed: 60,
        },
        "runsHiddenMode": "SHOWALL",
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": label} for label in LABELS],
        },
        "useGroupedValuesInCharts": True,
        "compareRunSections": [{"uuid": "answer", "name": NAME, "display": True, "isReordered": True}],
        "compareRunCharts": [
            _chart("map_at_r", type="SCATTER", xaxis=_axis(METRICS[3]), yaxis=_axis(METRICS[0])),
            _chart("recall_at_1", type="SCATTER", xaxis=_axis(METRICS[3]), yaxis=_axis(METRICS[1])),
            _chart("opis_corrected", type="BAR", metricKey=METRICS[3]),
        ],
    }


def _chart(uuid: str, **settings: Any) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "metricSectionId": "answer",
        "deleted": False,
        "runsCountToCompare": 100,
        **settings,
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}
