"""The batches of `train.decoder: gpu`: here with the CPU's decoder, on a GPU with nvJPEG."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.trial import TrialConfig
from dmlcore.core.errors import DataError
from dmlcore.data import decoders
from dmlcore.data.jpeg import JpegImages
from dmlcore.training import gpu_crops
from dmlcore.training.gpu_crops import GpuCrops, resized_crops
from dmlcore.training.input_pipeline import DRAWS, InputPipeline, random_boxes
from dmlcore.training.trainer import Trainer
from tests.small import small_trial
from tests.training.test_input_pipeline import CROP, naive_input, photographs, raw

CPU = torch.device("cpu")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pipelines(images, size, **options):
    options = {"size": size, "random_crop": CROP, "flip": True} | options
    return InputPipeline(images, **options), InputPipeline(images, **options, decode_on=CPU)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 0.501), (torch.float16, 0.75)])
@pytest.mark.parametrize("size", [24, 64, 150])
def test_crops_are_those_of_a_float64_twin(size, dtype, apart, device):
    """Rounded to a level once; float16 adds a quarter at most."""
    images = photographs()
    indices = np.arange(len(images))
    draws = np.random.default_rng(3).random((len(indices), DRAWS))
    boxes, mirrored = random_boxes(draws, images.sizes(indices), CROP), draws[:, -1] < 0.5
    decoded = [torch.from_numpy(images.read(index)).permute(2, 0, 1).to(device) for index in indices]
    batch = resized_crops(decoded, boxes, mirrored, (size, size), dtype).cpu()
    assert batch.shape == (len(images), size, size, 3)
    for index, box, mirror in zip(indices, boxes, mirrored, strict=True):
        exact = naive_input(images.read(index), box, size, mirror)
        assert np.abs(batch[index].numpy() - exact).max() <= apart


@pytest.mark.parametrize("crop", [CROP, None])
def test_batches_are_those_of_the_cpu_within_a_level(crop, monkeypatch):
    monkeypatch.setattr(gpu_crops, "PIXELS", 3 * 128 * 128)  # a batch in several parts
    images = photographs()
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, len(images), 11) for _ in range(5)]
    on_cpu, on_gpu = (
        list(pipeline.training_batches(batches, np.random.default_rng(1)))
        for pipeline in pipelines(images, 48, random_crop=crop)
    )
    assert len(on_gpu) == len(on_cpu) == 5
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        assert (expected.int() - found.int()).abs().max() <= 1


def test_evaluation_stays_the_cpus_to_the_bit():
    on_cpu, on_gpu = (pipeline.evaluation_batch(np.arange(20)) for pipeline in pipelines(photographs(), 48))
    assert torch.equal(on_cpu, on_gpu)


def test_batches_are_made_two_ahead_and_no_more():
    read = []

    def batches():
        for number in range(6):
            read.append(number)
            yield np.array([number])

    _, pipeline = pipelines(photographs(), 16)
    made = pipeline.training_batches(batches(), np.random.default_rng(0))
    next(made)
    assert read == [0, 1, 2]
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpu-inputs")]


def test_a_broken_image_is_named():
    images = photographs()
    data = np.array(images.data)
    start = int(images.offsets[4])
    data[start + 300 : start + int(images.lengths[4])] = 0xFF
    broken = GpuCrops(JpegImages(data, images.offsets, images.lengths), (16, 16), CPU)
    indices = np.array([2, 4, 6])
    boxes = np.hstack([np.zeros((3, 2), np.int64), images.sizes(indices)])
    with pytest.raises(DataError, match=r"image 4 of the split; .*remove train\.decoder"):
        list(broken.batches([(indices, (boxes, np.zeros(3, np.bool_)))]))


def test_pixels_need_no_decoder():
    with pytest.raises(DataError, match=r"needs a data set of JPEG files.*remove train\.decoder"):
        InputPipeline(raw(), size=16, random_crop=CROP, decode_on=CPU)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({}, "no `input`"),
        ({"input": {"size": 32}, "model": {"trunk": "frozen"}}, "model.trunk frozen"),
    ],
)
def test_a_trial_that_decodes_once_refuses_the_decoder(sections, reason):
    trial = {"dataset": "birds", "loss": {"name": "triplet"}, "train": {"decoder": "gpu"}}
    with pytest.raises(ConfigError, match=rf"got {reason}: remove train\.decoder"):
        parse(TrialConfig, trial | sections, "trial")


def test_a_sweep_without_gpus_refuses_the_decoder(tmp_path, small_data):
    trial = {"input": {"size": 16}, "train": {"epochs": 1, "batch_size": 8, "decoder": "gpu"}}
    # Here and not above: a GPU machine of `make gpu` may have no Ray
    from dmlcore.sweep.planning import make_plan
    from tests.sweep.sweeps import sweep_config

    sweep = sweep_config(trial=trial)
    with pytest.raises(ConfigError, match=r"resources\.gpus is 0: set resources\.gpus"):
        make_plan(sweep, study=tmp_path, prepared=small_data.folder.parent)
    assert make_plan(
        sweep_config(trial=trial, resources={"gpus": 1.0}), study=tmp_path, prepared=small_data.folder.parent
    )


def test_a_trial_without_a_gpu_refuses_the_decoder(tmp_path, small_data):
    config = small_trial(input={"size": 16}, train={"decoder": "gpu"})
    with pytest.raises(ValueError, match=r"this trial has none: set resources\.gpus"):
        Trainer(config, small_data, "train", CPU, tmp_path)


def num_threads():
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_workers_start_no_threads_of_their_own():
    """With a team of torch's threads for each worker, 4 workers would start 12 more and more than double this."""
    images = photographs()
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        pipeline = InputPipeline(images, size=224, random_crop=CROP, flip=True, workers=4)
        before = num_threads()
        batches = pipeline.training_batches([np.arange(20)] * 4, np.random.default_rng(0))
        most = max(num_threads() for _ in batches)
        assert torch.get_num_threads() == 4
        torch.ones(2**21).sum()  # the caller still computes on its own four
    finally:
        torch.set_num_threads(threads)
    assert most - before <= 4


@pytest.mark.parametrize("device", DEVICES)
def test_decoders_agree(device):
    """In brightness: they interpolate the halved colour in other ways, which is some levels in small images."""
    images = photographs()
    files = [images.encoded(index) for index in range(len(images))]
    for index, found in enumerate(decoders.decode_on(torch.device(device), files)):
        expected = torch.from_numpy(images.read(index)).permute(2, 0, 1)
        assert found.shape == expected.shape
        assert found.device.type == device
        apart = found.cpu().float() - expected.float()
        brightness = torch.tensordot(torch.tensor([0.299, 0.587, 0.114]), apart, dims=1)
        assert brightness.abs().mean() <= (0.0 if device == "cpu" else 1.0)


def test_without_torchvisions_operator_and_torchcodec_the_package_is_named(monkeypatch):
    decoders._cpu_decoder.cache_clear()
    monkeypatch.setattr(decoders.torch.ops, "image", object(), raising=False)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    try:
        with pytest.raises(ImportError, match="install the torchcodec that belongs to torch"):
            decoders.decode(np.zeros(10, np.uint8))
    finally:
        decoders._cpu_decoder.cache_clear()
