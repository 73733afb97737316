"""Text that people wrote, read with one rule: names of files and folders, and lists with one entry per line."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from dmlcore.core.errors import DataError

CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of what is no part of a name: control characters, what is not UTF-8 (Python decodes it to lone
surrogates), separators of lines and paragraphs. `str.isprintable` refuses more: each blank but U+0020, the joiners
within an emoji, private characters and those newer than Python's own table."""

OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They show the rest of a line in another order: `gpj.exe` as `exe.jpg`."""


def is_valid_name(name: str) -> bool:
    """Return whether a name is text that can be shown in one line."""
    return not any(unicodedata.category(each) in CONTROLS or each in OVERRIDES for each in name)


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8, without the byte order mark that some programs put first.

    Args:
        data: content of a file.
        name: of the file, for errors.

    Raises:
        DataError: another encoding.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = data[error.start], data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: must be UTF-8 text, got byte 0x{byte:02x} in line {line}; save the file as UTF-8"
        ) from None


def text_lines(data: bytes, name: str) -> list[str]:
    """Return the lines of a UTF-8 file, which end in "\\n" or "\\r\\n".

    Not `splitlines`: it also splits at U+2028, U+0085, form feeds and others that occur within a name.

    Raises:
        DataError: as `decode_text`.
    """
    lines = [line.removesuffix("\r") for line in decode_text(data, name).split("\n")]
    return lines[:-1] if not lines[-1] else lines


def normalised(name: str) -> str:
    """Return the composed form (NFC): macOS writes `é` as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def differing_by_normalisation(names: Iterable[str]) -> dict[str, list[str]]:
    """Return composed form -> the names that have it, sorted, where these are several names."""
    forms: dict[str, set[str]] = defaultdict(set)
    for name in names:
        forms[normalised(name)].add(name)
    return {form: sorted(found) for form, found in sorted(forms.items()) if len(found) > 1}
