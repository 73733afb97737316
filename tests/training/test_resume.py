"""An interrupted trial resumes from its checkpoint, to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dmlcore.training import run_trial
from dmlcore.training.store import TrialStore
from tests.small import small_dataset, small_trial

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "loss": {"name": "proxy_anchor"},
    "model": {"normalization": "batch_norm"},
    "train": {"epochs": 5, "schedule": {"name": "cosine", "warmup_epochs": 1.0}},
}


@pytest.fixture(scope="module")
def whole(small_data, tmp_path_factory):
    """The result of a run that nothing interrupts, by `final`."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        final: run_trial(trial(final), small_data, store=TrialStore(folder / str(final) / "trial"))
        for final in (None, True)
    }


def trial(final):
    return small_trial(**CHANGES | {"train": CHANGES["train"] | {"final": final}})


class StopError(Exception):
    pass


@pytest.mark.parametrize("final", [None, True])
@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_a_trial_that_was_stopped_gives_the_same_bits(small_data, tmp_path, whole, final, stop):
    store = TrialStore(tmp_path / "trial")

    def report(epoch):
        if epoch.epoch == stop:
            raise StopError

    try:
        run_trial(trial(final), small_data, store=store, report=report, checkpoint_seconds=0.0)
        assert (final, stop) == (None, 6)
    except StopError:
        assert store.path("last").is_file() or stop == 1
    seen = []
    result = run_trial(trial(final), small_data, store=store, report=seen.append, checkpoint_seconds=0.0)
    assert result == whole[final]
    assert seen == whole[final].curve
    assert not store.path("last").exists()


MEMORY = {
    "name": "pml:CrossBatchMemory",
    "params": {"loss": {"name": "ContrastiveLoss", "neg_margin": 0.7}, "memory_size": 40},
}


@pytest.mark.parametrize("stop", [2, 4])
def test_a_loss_that_keeps_a_queue_resumes_to_the_same_bits(small_data, tmp_path, stop):
    """Queue position and flags lie outside the state dict: step 4 gave 1.682 in place of 1.535."""
    config = small_trial(loss=MEMORY, train={"epochs": 5, "batches_per_epoch": 1})
    whole = run_trial(config, small_data, store=TrialStore(tmp_path / "whole"))
    store = TrialStore(tmp_path / "trial")

    def report(epoch):
        if epoch.epoch == stop:
            raise StopError

    with pytest.raises(StopError):
        run_trial(config, small_data, store=store, report=report, checkpoint_seconds=0.0)
    assert store.path("last").is_file()
    assert run_trial(config, small_data, store=store) == whole


def test_only_the_rest_is_trained(small_data, tmp_path):
    store = TrialStore(tmp_path / "trial")

    interrupt(trial(None), small_data, store, 4)
    kept = store.load_state("last")
    assert kept is not None
    assert '"epoch": 3' in kept[1]


@pytest.mark.parametrize("damage", ["cut", "bit", "best"])
def test_a_damaged_checkpoint_is_set_aside_and_the_trial_starts_again(small_data, tmp_path, whole, damage):
    store = TrialStore(tmp_path / "trial")

    interrupt(trial(None), small_data, store, 4)
    path = store.path("best" if damage == "best" else "last")
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    assert run_trial(trial(None), small_data, store=store) == whole[None]


@pytest.mark.parametrize("final", [None, True])
@pytest.mark.parametrize("name", ["best", "validation"])
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_damage_to_what_an_interrupted_trial_stored_costs_time_and_no_bit(
    small_data, tmp_path, whole, final, name, damage
):
    """The last epoch of each phase was reported; `best` and, with a final phase, `validation` are not written again."""
    store = TrialStore(tmp_path / "trial")
    epochs = CHANGES["train"]["epochs"] + (whole[True].metrics["validation/best_epoch"] if final else 0)

    interrupt(trial(final), small_data, store, epochs)
    damaged(store.path(name), damage)
    again = run_trial(trial(final), small_data, store=TrialStore(store.folder))
    assert again == whole[final]
    assert store.matches(again.files)


def test_a_best_that_is_newer_than_the_checkpoint_is_written_again(small_data, tmp_path, whole):
    """As a kill between the two leaves it: the checkpoint is kept, and only the rest is trained."""
    store = TrialStore(tmp_path / "trial")

    interrupt(trial(None), small_data, store, 2)
    store.path("best").write_bytes(b"of a later epoch")
    steps = []
    again = run_trial(trial(None), small_data, store=TrialStore(store.folder), report=steps.append)
    assert again == whole[None]
    assert [report.epoch for report in steps] == list(range(CHANGES["train"]["epochs"] + 1))


def interrupt(config, data, store, last):
    """Run a trial until it has reported the epoch `last`, a checkpoint after each."""

    def stop(epoch):
        if epoch.epoch == last:
            raise StopError

    with pytest.raises(StopError):
        run_trial(config, data, store=store, report=stop, checkpoint_seconds=0.0)


def damaged(path, damage):
    if not path.is_file():
        return
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-7] ^= 4
        path.write_bytes(content if damage == "bit" else content[: len(content) // 2])


def test_a_killed_process_costs_no_bit(tmp_path, whole):
    small_dataset(tmp_path / "data")
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from dmlcore.data.dataset import PreparedDataset
        from dmlcore.training import run_trial
        from dmlcore.training.trainer import Trainer
        from dmlcore.training.store import TrialStore
        from tests.training.test_resume import trial

        steps = 0
        ordinary = Trainer._step

        def step(self, *arguments):
            global steps
            steps += 1
            if steps == 15:  # in the middle of epoch 4
                os.kill(os.getpid(), signal.SIGKILL)
            return ordinary(self, *arguments)

        Trainer._step = step
        folder = Path({str(tmp_path)!r})
        store = TrialStore(folder / "trial")
        run_trial(trial(None), PreparedDataset.open(folder / "data"), store=store, checkpoint_seconds=0.0)
        """
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    from dmlcore.data.dataset import PreparedDataset

    store = TrialStore(tmp_path / "trial")
    assert store.path("last").is_file()
    result = run_trial(trial(None), PreparedDataset.open(tmp_path / "data"), store=store)
    assert result.metrics == whole[None].metrics
    assert result.files == whole[None].files
