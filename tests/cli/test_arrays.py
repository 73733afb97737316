"""Embeddings and labels of `dmlcore evaluate` and `calibrate` from every kind of file, and damaged ones."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.arrays import read_embeddings, read_labels
from dmlcore.cli.options import WRONG_INPUT

NAMES = ["ant", "bee\u2028fly", "7", "ant"]


def header(text: str, version: int = 1) -> bytes:
    """A .npy file of this header, with 64 bytes of data."""
    content = text.encode() + b"\n"
    size = len(content).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + content + bytes(64)


def described(dtype: str, shape: str = "(8,)") -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}")


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def torch_bytes(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


class Evil:
    """Unpickled, it would raise the alarm."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.npy", lambda path, x: np.save(path, x)),
        ("x.npy", lambda path, x: np.save(path, np.asfortranarray(x))),
        ("x.npz", lambda path, x: np.savez(path, x)),
        ("x.npz", lambda path, x: np.savez_compressed(path, embeddings=x)),
        ("x.pt", lambda path, x: torch.save(torch.from_numpy(x), path)),
        ("x.pth", lambda path, x: torch.save({"features": torch.from_numpy(x)}, path)),
    ],
)
def test_one_array_is_read_from_each_kind_of_file(tmp_path, name, write):
    x = np.random.default_rng(0).normal(size=(5, 3))
    write(tmp_path / name, x)
    np.testing.assert_array_equal(np.asarray(read_embeddings(tmp_path / name)), x)
    np.testing.assert_array_equal(np.asarray(read_labels(tmp_path / name)), x)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.txt", "3\n1\n-2\n", [3, 1, -2]),
        ("l.txt", "label\r\n3\r\n1", [3, 1]),
        ("l.txt", "\ufeffant\nbee\u2028fly\n7\nant\n", NAMES),
        ("l.txt", "007\n7\n", ["007", "7"]),
        ("l.txt", "9999999999999999999\n1\n", ["9999999999999999999", "1"]),
        ("l.csv", "3\n1\n", [3, 1]),
        ("l.csv", "target\n3\n1\n", [3, 1]),
        ("l.csv", "Label\nant\nbee\n", ["ant", "bee"]),
        ("l.csv", 'path,label,x\na.png,"ant, red",1\nb.png,bee,2\n', ["ant, red", "bee"]),
        ("l.csv", ",label\n0,3\n1,1\n", [3, 1]),
        ("l.tsv", "path\tclass\na\tant\n", ["ant"]),
    ],
)
def test_labels_are_read_from_text(tmp_path, name, text, labels):
    (tmp_path / name).write_bytes(text.encode())
    assert np.asarray(read_labels(tmp_path / name)).tolist() == labels


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", described("'<f8'", "(1000000000000, 8)"), "its header says 64,000,000,000,000 bytes"),
        ("x.npy", described("'<f8'", "(9,)"), "its header says 72 bytes [9], 64 follow"),
        ("x.npy", described("'<f8'", "(7,)"), "56 bytes [7], 64 follow"),
        ("x.npy", described("'<f8'", "(-8,)"), "is damaged"),
        ("x.npy", described("'<f8'", "(-2, -4)"), "is damaged"),
        ("x.npy", described("'<f8'", "(99999999999999999999,)"), "is damaged"),
        ("x.npy", described("'<M8[s]'"), "its header says dates"),
        ("x.npy", described("'<m8[s]'"), "its header says time spans"),
        ("x.npy", described("'|O'"), "Python objects"),
        ("x.npy", described("'<c16'", "(4,)"), "numbers or texts"),
        ("x.npy", described("[('a', '<f8')]"), "numbers or texts"),
        ("x.npy", described("[" * 500 + "]" * 500), "header cannot be read"),
        ("x.npy", described("(" * 60_000)[:60_000], "header cannot be read"),
        ("x.npy", described("'|V8'"), "numbers or texts"),
        ("x.npy", header("{}", 2), "header cannot be read"),
        ("x.npy", header("{}", 3), "version (3, 0)"),
        ("x.npy", header("{}")[:9], "header cannot be read"),
        ("x.npy", b"\x93NUMPY", "header cannot be read"),
        ("x.npy", b"not an array", "does not start as a .npy file does"),
        ("x.npy", b"", "does not start as a .npy file does"),
        ("x.npz", npz(a=np.zeros(2), b=np.ones(2)), "it holds 2: a, b"),
        ("x.npz", npz(), "it holds 0"),
        ("x.npz", npz(a=np.zeros(99))[:-30], "is damaged"),
        ("x.npz", npz(a=np.array([Evil()], dtype=object)), "Python objects"),
        ("x.npz", zip_of("a.npy", described("'<f8'", "(1000000000000, 8)")), "64,000,000,000,000 bytes"),
        ("x.npz", zip_of("a.txt", b"hello"), "header cannot be read"),
        ("x.pt", torch_bytes({"a": torch.zeros(2), "b": torch.ones(2)}), "it holds: a, b"),
        ("x.pt", torch_bytes([1, 2]), "it holds: list"),
        ("x.pt", torch_bytes(Evil()), "one tensor and nothing else"),
        ("x.pt", torch_bytes(torch.zeros(99))[:-60], "one tensor and nothing else"),
        ("x.pt", b"", "one tensor and nothing else"),
        ("x.pkl", b"\x80\x04N.", "must be a .npy file"),
        ("x.csv", b"a,b\nc,d\n", "must have one column, or one that is named label"),
        ("x.csv", b"label,class\n1,2\n", "must have one column"),
        ("x.csv", b"1\n2,3\n", "same number of fields"),
        ("x.csv", b'"1\n2', "must be a CSV file"),
        ("x.txt", b"", "nothing in it"),
        ("x.txt", b"a\n\nb\n", "none in row 1"),
        ("x.txt", b"caf\xe9\n", "must be UTF-8 text, got byte 0xe9 in line 1"),
    ],
)
def test_what_is_no_array_is_refused_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_labels(tmp_path / name)
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_text_is_no_file_of_embeddings(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_text("0.5\n")
    with pytest.raises(ValueError, match=r"np\.save"):
        read_embeddings(tmp_path / f"x{suffix}")


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 6)
    return random.normal(size=(12, 8))[labels] + 0.8 * random.normal(size=(72, 8)), labels


def test_names_give_the_numbers_of_integers(tmp_path, split):
    x, labels = split
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "l.npy", labels)
    (tmp_path / "l.csv").write_text("label\n" + "".join(f"bird {label:02}\n" for label in labels))
    outputs = []
    for name in ("l.npy", "l.csv"):
        arguments = ["evaluate", "--embeddings", f"{tmp_path / 'x.npy'}", "--labels", f"{tmp_path / name}"]
        outputs.append(CliRunner().invoke(app, arguments))
    assert outputs[0].exit_code == 0, outputs[0].output
    assert outputs[0].output == outputs[1].output


def test_a_calibration_names_the_classes_as_their_labels_do(tmp_path, split):
    x, labels = split
    torch.save(torch.from_numpy(x), tmp_path / "x.pt")
    (tmp_path / "l.txt").write_text("".join(f"bird {label:02}\n" for label in labels))
    files = [f"{tmp_path / name}" for name in ("x.pt", "l.txt", "x.pt", "l.txt", "c.csv", "card.json")]
    options = ["--validation", "--validation-labels", "--test", "--test-labels", "--classes", "--card"]
    arguments = [word for pair in zip(options, files, strict=True) for word in pair]
    done = CliRunner().invoke(app, ["calibrate", "--far", "0.1", *arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "c.csv").read_text().splitlines()[3].startswith("2,bird 02,6,")
    twice = CliRunner().invoke(app, ["calibrate", "--far", "0.1", *arguments, "--class-names", files[1]])
    assert twice.exit_code == WRONG_INPUT
    assert "leave out --class-names" in twice.output


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
@pytest.mark.parametrize("name", ["p.jpg", "p", "p.png.pdf"])
def test_a_plot_of_another_format_is_refused_first(tmp_path, command, name):
    needed = (
        ["--embeddings", "none.npy", "--labels", "none.npy"] if command == "evaluate" else ["--far", "0.1"]
    )
    done = CliRunner().invoke(app, [command, *needed, "--plot", f"{tmp_path / name}"])
    assert done.exit_code == WRONG_INPUT
    assert "--plot must end in .png" in done.output
