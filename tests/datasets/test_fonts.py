import json

import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire_fonts
from dmlcore.datasets.importers.glyphs import FACES


def test_all_faces_and_their_licences_are_copied(fonts):
    names = {path.name for path in fonts.iterdir()}
    assert names == {f"{face}.ttf" for face in FACES} | {"LICENSE_DEJAVU", "LICENSE_STIX"}
    assert len(FACES) == 16


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"DejaVuSans.ttf": "0" * 64}, "DejaVuSans.ttf of matplotlib .* sha256 must be 0000.*, got 3fdf69ca"),
        ({"Absent.ttf": "0" * 64}, "Absent.ttf .* got no such file"),
        ({"../../matplotlibrc": "0" * 64}, "plain file name"),
    ],
)
def test_a_file_other_than_listed_is_refused(tmp_path, files, message):
    (tmp_path / "list.json").write_text(json.dumps({"files": files}))
    with pytest.raises(DataError, match=message):
        acquire_fonts(tmp_path / "list.json", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_list_that_is_none_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="must be JSON"):
        acquire_fonts(tmp_path / "list.json", tmp_path / "raw")
