"""The tests are of the compiled loops, however few their images; those that name `engine` are of both engines."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module", params=["compiled"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            patch.setattr("dmlcore.metrics.evaluation.FEW_IMAGES", 0)
        yield request.param
