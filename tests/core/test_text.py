"""Names that are accepted, and lists that are read line by line."""

from __future__ import annotations

import pytest

from dmlcore.core.errors import DataError
from dmlcore.core.text import differing_by_normalisation, is_valid_name, text_lines

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
SCREENSHOT = "Screenshot 2024-05-01 at 9.41.00\u202fAM"
VALID = [
    *(SCREENSHOT, "a\u00a0b", "\u6771\u4eac\u3000\u99c5", FAMILY, ENGLAND, "\u2764\ufe0f"),
    *(
        "\u200eWhatsApp Image",
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\uf8ff",
        "\U0001fbff",
    ),
]


@pytest.mark.parametrize("name", VALID, ids=ascii)
def test_names_that_people_write_are_valid(name):
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\x1b[31m", "a\u2028b", "a\u2029b", "a\x85b", "a\udcff", "\u202egpj.exe", "\u2066a"],
    ids=ascii,
)
def test_what_is_no_line_of_text_is_not(name):
    assert not is_valid_name(name)


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\r"], ids=ascii)
def test_lines_end_at_line_feeds_alone(odd):
    assert text_lines(f"a{odd}b\nc\n".encode(), "names.txt") == [f"a{odd}b", "c"]


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_a_line():
    assert text_lines("\ufeffa\r\n\r\nb".encode(), "names.txt") == ["a", "", "b"]
    assert text_lines(b"", "names.txt") == []


def test_another_encoding_is_named_with_file_byte_and_line():
    with pytest.raises(DataError, match=r"names.txt: must be UTF-8 text, got byte 0xe9 in line 2; save"):
        text_lines("caf\ncaf\xe9\n".encode("latin-1"), "names.txt")
    with pytest.raises(DataError, match=r"names.txt: must be UTF-8 text, got byte 0xff in line 1"):
        text_lines("a".encode("utf-16"), "names.txt")


def test_names_that_differ_only_by_normalisation_are_found():
    assert differing_by_normalisation(["e\u0301", "b", "\u00e9", "b"]) == {"\u00e9": ["e\u0301", "\u00e9"]}
    assert differing_by_normalisation(["a", "A"]) == {}
