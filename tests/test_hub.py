"""A trial that leaves its study: the same embeddings wherever it is used, and a folder that is not trusted."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import WRONG_INPUT
from dmlcore.datasets.prepare.image_decoding import MAX_ASPECT
from dmlcore.hub import Embedder
from dmlcore.hub.folder import FILES, Settings, build_network
from dmlcore.hub.onnx import run_onnx
from dmlcore.hub.plain_code import code_of
from dmlcore.records import RecordFolder
from dmlcore.training.preparation import LARGEST_ASPECT
from dmlcore.training.store import TrialStore
from tests.cli.trained import KEY, trained_checkout

pytestmark = pytest.mark.filterwarnings("ignore")
TOLERANCE = 1e-5
"""Of one number of an embedding of L2 norm 1; a wrong mean or crop is off by 0.04."""
needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra `onnx` is not installed")
needs_hub = pytest.mark.skipif(
    find_spec("huggingface_hub") is None, reason="the extra `hub` is not installed"
)


def call(command, *arguments):
    return CliRunner().invoke(app, [command, *map(str, arguments)])


@pytest.fixture(scope="module", params=["whole", "jpeg"])
def study(request, tmp_path_factory):
    """A checkout whose one trial is calibrated and exported to `exported/`."""
    root = trained_checkout(tmp_path_factory.mktemp("checkout"), request.param)
    done = call("calibrate", "--trial", KEY, "--study", root, "--far", 0.1, "--card", root / "card.json")
    assert done.exit_code == 0, done.output
    done = call(
        "export-model", KEY, "--into", root / "exported", "--study", root, "--card", root / "card.json"
    )
    assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def folder(study, tmp_path):
    """A copy of the export, to break."""
    return Path(shutil.copytree(study / "exported", tmp_path / "exported"))


def stored(study):
    """What the trial stored of its test images, of L2 norm 1."""
    (record,) = RecordFolder(study / "state" / "records").all()
    store = TrialStore(study / "state" / "storage" / KEY, record.files)
    return torch.nn.functional.normalize(store.load("test")["embeddings"]).numpy()


def images_of(study):
    return sorted((study / "images").rglob("*.PNG"))


def run_card(folder, images, out):
    """Run the code of a model card in a process in which dmlcore cannot be imported."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    values = {
        'FOLDER = Path(".")': f"FOLDER = Path({str(folder)!r})",
        'IMAGES = ["image.jpg"]': f"IMAGES = {[*map(str, images)]}",
    }
    for line, value in values.items():
        assert line in code
        code = code.replace(line, value)
    code = f"import sys\nsys.modules['dmlcore'] = None\n{code}\nnp.save({str(out)!r}, embeddings)\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=out.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(out)


def test_the_code_of_the_model_card_embeds_as_the_trial_did(study, tmp_path):
    found = run_card(study / "exported", images_of(study), tmp_path / "out.npy")
    np.testing.assert_allclose(found, stored(study), rtol=0, atol=TOLERANCE)


def test_an_embedder_embeds_as_the_trial_did(study):
    embedder = Embedder.from_pretrained(study / "exported")
    assert not embedder.training
    files = images_of(study)
    np.testing.assert_allclose(embedder.embed(files), stored(study), rtol=0, atol=TOLERANCE)
    pictures = [Image.open(files[0]), files[1].read_bytes(), str(files[2])]
    np.testing.assert_allclose(embedder.embed(pictures), stored(study)[:3], rtol=0, atol=TOLERANCE)


@needs_onnx
def test_onnx_runtime_embeds_as_the_trial_did_whatever_the_batch(study):
    images = Embedder.from_pretrained(study / "exported").prepare(images_of(study))
    graph = (study / "exported" / "model.onnx").read_bytes()
    for count in (1, 3, len(images)):
        found = run_onnx(graph, images[:count])
        np.testing.assert_allclose(found, stored(study)[:count], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("study", ["jpeg"], indirect=True)
def test_mlflow_embeds_as_the_trial_did_and_carries_preparation_and_threshold(study, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert call("publish", KEY, "--study", study).exit_code == 0  # as the end of a sweep does, without a card
    done = call("publish", KEY, "--study", study, "--card", study / "card.json", "--register", "m")
    assert "logged before" not in done.output, done.output
    again = call("publish", KEY, "--study", study, "--card", study / "card.json", "--register", "m")
    assert "(logged before), registered as models:/m/1" in again.output, again.output
    embedder = Embedder.from_pretrained(study / "exported")
    np.save(tmp_path / "images.npy", embedder.prepare(images_of(study)))
    code = f"""
import json, mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///{study}/state/mlflow.db")
model = mlflow.pyfunc.load_model("models:/m/1")
np.save("out.npy", model.predict(np.load("images.npy")))
facts = {{"metadata": model.metadata.metadata, "card": model.unwrap_python_model().threshold_card}}
json.dump(facts, open("facts.json", "w"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), stored(study), rtol=0, atol=TOLERANCE)
    facts, card = (
        json.loads((tmp_path / "facts.json").read_text()),
        json.loads((study / "card.json").read_text()),
    )
    assert facts["card"] == card
    assert facts["metadata"]["threshold"] == card["threshold"]
    assert facts["metadata"]["preprocessing"] == embedder.settings.preprocessing.model_dump(mode="json")


def test_the_folder_says_where_the_model_comes_from(study):
    config = json.loads((study / "exported" / "config.json").read_text(encoding="utf-8"))
    card = json.loads((study / "card.json").read_text(encoding="utf-8"))
    text = (study / "exported" / "README.md").read_text(encoding="utf-8")
    (record,) = RecordFolder(study / "state" / "records").all()
    assert config["threshold"]["distance"] == card["threshold"]["distance"]
    assert (study / "exported" / "threshold.json").read_bytes() == (study / "card.json").read_bytes()
    assert {"torch", "timm", "dmlcore"} <= set(config["versions"])
    for words in (
        f"{card['threshold']['distance']:.6f}", f"{record.metrics['test/map_at_r']:.4f}", record.trial_key,
        config["trial"]["data_hash"], config["trial"]["licence"], "none: random initial weights",
    ):  # fmt: skip
        assert words in text
    assert LARGEST_ASPECT == MAX_ASPECT


def test_a_copy_of_a_copy_is_the_same(study, tmp_path):
    Embedder.from_pretrained(study / "exported").save_pretrained(tmp_path / "copy", onnx=False)
    first, second = (
        json.loads((root / "config.json").read_text()) | {"onnx": None}
        for root in (study / "exported", tmp_path / "copy")
    )
    assert first == second
    for name in ("model.safetensors", "README.md", "threshold.json"):
        assert (study / "exported" / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def backbone(folder, **arguments):
    own = json.loads((folder / "config.json").read_text())["backbone"]
    changed(folder, backbone=own | {"arguments": own["arguments"] | arguments})


def cut(folder):
    os.truncate(folder / "model.safetensors", 100)


def flip(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def other_tensors(folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"projection.bias": torch.zeros(3)}, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    from dmlcore.hub.folder import facts_of

    changed(folder, weights=facts_of(content))


def link_out(folder):
    shutil.move(folder / "model.safetensors", folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "must have .* bytes, as config.json says, got 100"),
        (flip, "must have the sha256"),
        (other_tensors, "'projection.bias' is not: expected .16. float32, got .3. float32"),
        (link_out, "a link must not lead out of its folder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "must be of the format dmlcore-embedder, got None"),
        (lambda folder: changed(folder, more=1), "`more`: Extra inputs are not permitted"),
        (lambda folder: backbone(folder, checkpoint_path="/etc/passwd"), "must name no file and no weights"),
        (lambda folder: backbone(folder, channels=[10**9] * 4), "must be at most 65,536, got 1000000000"),
        (lambda folder: backbone(folder, channels=[60000] * 4), "must be those of the network in config.json"),
        (lambda folder: backbone(folder, unknown=1), "must be arguments of the timm model"),
        (lambda folder: (folder / "threshold.json").write_text("{}"), "threshold.json must have"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("study", ["whole"], indirect=True)
def test_a_folder_is_not_trusted(folder, damage, words):
    damage(folder)
    with pytest.raises(ValueError, match=words):
        Embedder.from_pretrained(folder)


@pytest.mark.parametrize("study", ["whole"], indirect=True)
def test_all_files_are_written_or_none(study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    wrong = tmp_path / "card.json"
    wrong.write_text(json.dumps(json.loads((study / "card.json").read_text()) | {"trial_key": "another"}))
    for arguments, words in (
        (["--into", tmp_path / "mine"], "it has 'thesis.tex'; give another folder"),
        (["--into", wrong], "must be a folder, got a file"),
        (["--into", tmp_path / "new", "--card", wrong], "it is of 'another'; calibrate the trial"),
        (
            ["--into", tmp_path / "new", "--card", study / "params.yaml"],
            "must be a card of `dmlcore calibrate`",
        ),
    ):
        done = call("export-model", KEY, "--study", study, *arguments)
        assert done.exit_code == WRONG_INPUT, done.output
        assert words in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "mine"]


def test_images_must_be_prepared(study):
    embedder = Embedder.from_pretrained(study / "exported")
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \[N, 16, 16"):
        embedder(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        embedder.embed([b"no image"])
    with pytest.raises(ValueError, match="must be a folder that `dmlcore export-model` wrote, or a model id"):
        Embedder.from_pretrained("/no/such/folder")


@needs_hub
@pytest.mark.parametrize("study", ["whole"], indirect=True)
def test_the_hub_s_cache_is_read_as_a_folder(study, tmp_path):
    """As `snapshot_download` leaves it: names in `snapshots`, links to `blobs`."""
    root, commit = tmp_path / "models--me--glyphs", "0" * 40
    snapshot = root / "snapshots" / commit
    for folder in (snapshot, root / "blobs", root / "refs"):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for name in FILES:
        shutil.copy(study / "exported" / name, root / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    embedder = Embedder.from_pretrained("me/glyphs", cache_dir=tmp_path, local_files_only=True)
    files = images_of(study)[:2]
    np.testing.assert_allclose(embedder.embed(files), stored(study)[:2], rtol=0, atol=TOLERANCE)
    from huggingface_hub import PyTorchModelHubMixin

    assert isinstance(embedder, PyTorchModelHubMixin)


SWIN = {"img_size": 32, "window_size": 4, "depths": [1, 1, 1, 1], "embed_dim": 24}
NETWORKS = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1}, "token", "none", "NLC"),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, "gem", "batch_norm", "NHWC"),
    "resnet": ("resnet10t", {"channels": [8, 16, 16, 16]}, "gem", "batch_norm", "NCHW"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("stored_size", "precision"), [(48, None), (20, "bfloat16")])
@pytest.mark.parametrize("study", ["jpeg"], indirect=True)
def test_the_plain_code_fits_every_head_layout_and_crop(folder, name, stored_size, precision, tmp_path):
    """Each network with random weights, on a photograph with transparency; 20 pixels are enlarged to 32."""
    backbone, arguments, pooling, normalization, layout = NETWORKS[name]
    config = json.loads((folder / "config.json").read_text()) | {"threshold": None, "precision": precision}
    config["backbone"] |= {"name": backbone, "arguments": arguments, "layout": layout}
    config["head"] = {"pooling": pooling, "normalization": normalization, "embedding_dim": 8}
    config["preprocessing"] |= {"resized_size": stored_size, "crop": 32}
    settings = Settings.model_validate_json(json.dumps(config))
    embedder = Embedder(settings, build_network(settings).eval(), model_card="none")
    embedder.save_pretrained(tmp_path / name, onnx=False)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    code = code_of(settings).replace('Path(".")', f"Path({str(tmp_path / name)!r})")
    names = {}
    exec(code.replace("image.jpg", str(tmp_path / "image.png")), names)
    expected = Embedder.from_pretrained(tmp_path / name).embed([tmp_path / "image.png"])
    np.testing.assert_allclose(names["embeddings"], expected, rtol=0, atol=TOLERANCE)


class Hub(BaseHTTPRequestHandler):
    """The few addresses of the hub that an upload needs; keeps what it gets."""

    uploaded: ClassVar[dict[str, bytes]] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {
                "files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            }
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.uploaded[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {
                "commitUrl": f"http://{self.headers['Host']}/me/glyphs/commit/1",
                "commitOid": "1",
                "success": True,
            }
        else:
            answer = {"url": f"http://{self.headers['Host']}/me/glyphs", "id": "me/glyphs"}
        self._answer(answer)

    def do_GET(self):
        self._answer({"id": "me/glyphs", "sha": "1", "siblings": [], "tags": []})

    def _answer(self, values):
        content = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@needs_hub
@pytest.mark.parametrize("study", ["whole"], indirect=True)
def test_an_embedder_is_pushed_as_the_folder_that_it_was_read_from(study):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    code = f"""
from dmlcore.hub import Embedder
Embedder.from_pretrained({str(study / "exported")!r}).push_to_hub("me/glyphs", token="hf_x")
"""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    exported = {path.name: path.read_bytes() for path in (study / "exported").iterdir()}
    assert set(Hub.uploaded) == set(exported)
    for name in ("model.safetensors", "README.md", "threshold.json"):
        assert Hub.uploaded[name] == exported[name]


@pytest.mark.parametrize("study", ["whole"], indirect=True)
def test_without_the_extra_hub_folders_are_read_and_one_line_says_what_is_missing(study):
    code = f"""
import sys
sys.modules["huggingface_hub"] = None
from dmlcore.hub import Embedder
embedder = Embedder.from_pretrained({str(study / "exported")!r})
for call in (embedder.push_to_hub, Embedder.from_pretrained):
    try:
        call("me/glyphs")
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("not installed; run pip install 'dmlcore[hub]'") for line in lines)
