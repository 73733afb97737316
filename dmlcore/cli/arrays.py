"""Embeddings and labels from files: NumPy, torch and text, nothing unpickled and no header believed."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, BinaryIO

from dmlcore.core.text import decode_text, text_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmlcore.metrics.inputs import Array

EMBEDDINGS = "[N, D] floats, one row per image: .npy, or .npz or .pt of one array."
LABELS = "[N] integers or names, the class of each row: the same files, or .csv or .txt."
TORCH, TEXT = (".pt", ".pth"), (".csv", ".tsv", ".txt")
GROUPS = "[N] integers or names: the same files as labels."
QUERIES = "[N] true or false, 1 or 0, query or gallery: the same files as labels."
COLUMNS = {
    "label": ("label", "labels", "class", "class_name"),
    "group": ("group", "groups", "camera", "sequence", "encounter"),
    "is_query": ("is_query", "query", "role"),
}
"""Of a CSV with several columns, and the header of one with a single column of names."""
QUERY_WORDS = {"1": True, "true": True, "query": True, "0": False, "false": False, "gallery": False}
ARRAY_FILES = "a .npy file, an .npz or .pt file of one array"
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")
"""007 is a text: it may be another class than 7."""
MOST_HEADER_BYTES = 4096
"""NumPy writes 128; a longer one can only be a nested dtype."""


def read_embeddings(path: Path) -> Array:
    """Read the array of a .npy, .npz or .pt file.

    Raises:
        ValueError: it is none of them, holds no array or several, or an array of something else than numbers.
    """
    found = _read_array(path)
    if found is None:
        raise ValueError(f"{path} must be {ARRAY_FILES}; write one with np.save(path, array)")
    return found


def read_labels(path: Path, what: str = "label") -> Array:
    """Read labels from the same files, or from text: one label a line, or the column `label` of a CSV.

    Raises:
        ValueError: as `read_embeddings`; a line without a label.
    """
    found = _read_array(path)
    if found is not None:
        return found
    if path.suffix.lower() not in TEXT:
        raise ValueError(f"{path} must be {ARRAY_FILES}, or a .csv or .txt file with one {what} a line")
    return _text_labels(path, what)


def read_groups(path: Path) -> Array:
    """Read groups, as labels are read; of a CSV the column `group`.

    Raises:
        ValueError: as `read_labels`.
    """
    return read_labels(path, "group")


def read_is_query(path: Path) -> NDArray[np.bool_]:
    """Read which images are queries, [N]: booleans, 1 and 0, or the words `true`, `false`, `query`, `gallery`.

    Raises:
        ValueError: as `read_labels`; another value.
    """
    import numpy as np

    values = np.asarray(read_labels(path, "is_query"))
    if values.ndim != 1:
        raise ValueError(
            f"{path} must be [N], one value for each image, got {list(values.shape)}; reshape it"
        )
    words = [str(value).strip().lower() for value in values.tolist()]
    other = next((row for row, word in enumerate(words) if word not in QUERY_WORDS), None)
    if other is not None:
        raise ValueError(
            f"{path} must say query or gallery (or true or false, 1 or 0) for each image, row {other} is "
            f"{words[other]!r:.40}; write one of them"
        )
    return np.array([QUERY_WORDS[word] for word in words], dtype=np.bool_)


def _read_array(path: Path) -> Array | None:
    """Return the array of a file, or None if it has another format."""
    with path.open("rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        if start == b"\x93NUMPY":
            return _read_npy(stream, path.stat().st_size, f"{path}")
        if path.suffix.lower() in TORCH:
            return _read_torch(path)
        if start.startswith(b"PK") and path.suffix.lower() not in TEXT:
            return _read_npz(stream, path)
    if path.suffix.lower() in (".npy", ".npz"):
        raise ValueError(f"{path} is damaged: it does not start as a {path.suffix} file does; write it again")
    return None


def _read_npy(stream: BinaryIO | Any, size: int, name: str) -> NDArray[np.generic]:
    """Read a .npy file once its header is known to fit the bytes that follow it."""
    import numpy as np

    shape, dtype = _header(stream, name)
    if dtype.kind not in "biufUS":
        what = {"O": "Python objects, which would have to be unpickled", "M": "dates", "m": "time spans"}
        raise ValueError(
            f"{name} must hold numbers or texts, its header says {what.get(dtype.kind, f'{dtype!s:.80}')}; save "
            "array.astype(np.float32), or int64 for labels"
        )
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed != held or min(shape, default=1) < 0:
        raise ValueError(
            f"{name} is damaged: its header says {claimed:,} bytes {list(shape)!s:.80}, {held:,} follow; write it again"
        )
    stream.seek(0)
    array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _header(stream: BinaryIO | Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = readers[version](stream, max_header_size=MOST_HEADER_BYTES)
    except KeyError:
        raise ValueError(f"{name}: version {version} of .npy has named fields; save a plain array") from None
    except (ValueError, EOFError, MemoryError, RecursionError, TypeError, SyntaxError, TokenError) as error:
        reason = " ".join(f"{error}".split())[:120] or type(error).__name__
        raise ValueError(
            f"{name} is damaged: its .npy header cannot be read ({reason}); write it again"
        ) from None
    return shape, dtype


def _read_npz(stream: BinaryIO, path: Path) -> NDArray[np.generic]:
    from zipfile import BadZipFile, ZipFile
    from zlib import error as zlib_error

    try:
        with ZipFile(stream) as archive:
            members = archive.infolist()
            if len(members) != 1:
                names = ", ".join(member.filename.removesuffix(".npy")[:40] for member in members[:5])
                raise ValueError(
                    f"{path} must hold one array, it holds {len(members)}: {names}; save each alone with np.save"
                )
            with archive.open(members[0]) as member:
                return _read_npy(member, members[0].file_size, f"{path}")
    except (BadZipFile, zlib_error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}; write it again") from None


def _read_torch(path: Path) -> Array:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, by what the bytes happen to be
        raise ValueError(
            f"{path} must be a .pt file of one tensor and nothing else ({type(error).__name__}); write it with "
            "torch.save(tensor, path)"
        ) from None
    tensors = (
        [held] if isinstance(held, torch.Tensor) else list(held.values()) if isinstance(held, dict) else []
    )
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor):
        names = (
            ", ".join(f"{key!s:.40}" for key in list(held)[:5])
            if isinstance(held, dict)
            else type(held).__name__
        )
        raise ValueError(
            f"{path} must hold one tensor, it holds: {names}; write it with torch.save(tensor, path)"
        )
    return tensors[0]


def _text_labels(path: Path, what: str) -> NDArray[np.generic]:
    """Return int64 labels if every line is a whole number, else the texts."""
    import numpy as np

    data, name = path.read_bytes(), str(path)
    labels = (
        text_lines(data, name)
        if path.suffix.lower() == ".txt"
        else _column(decode_text(data, name), path, what)
    )
    empty = next((number for number, label in enumerate(labels) if not label.strip()), None)
    if empty is not None or not labels:
        where = "nothing in it" if empty is None else f"none in row {empty}"
        raise ValueError(
            f"{path} must have a {what} for each row, there is {where}; remove the line or fill it"
        )
    header = not any(map(str.isdigit, labels[0])) and labels[1:] and all(map(WHOLE.fullmatch, labels[1:]))
    if header:
        del labels[0]
    if not all(map(WHOLE.fullmatch, labels)):
        return np.array(labels)
    try:
        return np.array([int(label) for label in labels], dtype=np.int64)
    except OverflowError:
        return np.array(labels)


def _column(text: str, path: Path, what: str) -> list[str]:
    import csv

    try:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a CSV file: {error}; quote fields with quotes or line ends"
        ) from None
    if not rows or len(set(map(len, rows))) > 1:
        widths = sorted({len(row) for row in rows})
        raise ValueError(
            f"{path} must have the same number of fields in each row, got {widths[:5]}; mend the rows"
        )
    header = [field.strip().lower() for field in rows[0]]
    named = [index for index, field in enumerate(header) if field in COLUMNS[what]]
    if header == ["query"] and any(row[0].strip().lower() in ("query", "gallery") for row in rows[1:]):
        named = []  # the first word of a mask, not its name
    if len(named) == 1:
        return [row[named[0]] for row in rows[1:]]
    if len(header) > 1:
        raise ValueError(
            f"{path} must have one column, or one that is named {what}; its first row is {', '.join(rows[0])[:120]!r}"
        )
    return [row[0] for row in rows]
