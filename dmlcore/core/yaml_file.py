"""A params file read strictly: what YAML 1.1 turns into something else in silence is refused, and so is a bomb."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dmlcore.core.text import decode_text

MOST_BYTES = 1 << 19
MOST_VALUES = 100_000
"""With every `*alias` written out: nine lines of aliases of aliases can expand to a billion values."""
DEEPEST = 64
"""Levels. PyYAML composes by recursion, and a few thousand levels end the process."""

SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}
MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
SEQUENCE, MAPPING = "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
NOT_DECIMAL = re.compile(r"[-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads to other bases: 010 is 8, 1:30 is 90."""

EXPONENT = re.compile(r"([-+]?)([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)[eE]([-+]?)([0-9]+)")
"""A number with an exponent, as most languages take it; YAML 1.1 takes it with a point and a sign alone."""
LONGEST_NUMBER = 40

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C is ten times as fast; PyYAML may have been built without it."""


class YamlError(ValueError):
    """A YAML file that is not read; the message says the line, the value and the fix."""


def load_yaml(path: Path) -> Any:
    """Read a YAML file of mappings with text keys, lists, texts, numbers, true/false and null.

    Raises:
        YamlError: the file is not YAML, gives a key twice, has a key that is no text, a value of another type
            (date, set, bytes), or more levels or values than any params file.
        DataError: it is not UTF-8 text.
        OSError: it cannot be read.
    """
    text = _text(path)
    try:
        _check_depth(text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Check().size(node, "")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise YamlError(f"not valid YAML: {_line(error.problem_mark)}{problem}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except (ArithmeticError, LookupError) as error:  # PyYAML's, of a tag that does not fit: `!!bool maybe`
        raise YamlError(f"a value does not fit its tag: {error}; remove the tag") from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YamlError(f"must be at most {MOST_BYTES:,} bytes; is it a params file?")
    return decode_text(content, f"{path}")


def _check_depth(text: str) -> None:
    """Refuse deep nesting by the events alone, which takes no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise YamlError(f"{_line(event.start_mark)}must have at most {DEEPEST} levels; remove brackets")


class _Check:
    """The rules of a value and of all below it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        """Node -> values below it, aliases written out. 0 while it is counted: then it holds itself."""

    def size(self, node: Any, path: str) -> int:
        """Check a node and return how many values it expands to."""
        if id(node) in self._sizes:
            if not self._sizes[id(node)]:
                raise YamlError(
                    f"{_named(node, path)}an alias must not be inside what it repeats; write it out"
                )
            return self._sizes[id(node)]
        self._sizes[id(node)] = 0
        if node.tag == SEQUENCE and isinstance(node, yaml.SequenceNode):
            size = self._sum(node, path, [(str(number), value) for number, value in enumerate(node.value)])
        elif node.tag == MAPPING and isinstance(node, yaml.MappingNode):
            size = self._sum(node, path, _entries(node, path))
        else:
            size = _check_scalar(node, path)
        self._sizes[id(node)] = size
        return size

    def _sum(self, node: Any, path: str, entries: list[tuple[str, Any]]) -> int:
        size = 1
        for key, value in entries:
            size += self.size(value, f"{path}.{key}" if path else key)
            if size > MOST_VALUES:
                raise YamlError(
                    f"{_named(node, path)}must have at most {MOST_VALUES:,} values, every alias written out; "
                    "use fewer aliases"
                )
        return size


def _entries(node: Any, path: str) -> list[tuple[str, Any]]:
    """Return the keys and values of a mapping, each key a text and given once."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag not in (TEXT, MERGE):
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
            read = key.tag.rpartition(":")[2]
            raise YamlError(
                f"{_named(key, path)}a key must be a text, YAML reads {shown} as {read}; write it in quotes"
            )
        if key.value in lines:
            raise YamlError(
                f"{_named(key, path)}key {key.value!r} is given twice, first in line {lines[key.value]}; keep one"
            )
        lines[key.value] = key.start_mark.line + 1
    return [(key.value, value) for key, value in node.value]


def _check_scalar(node: Any, path: str) -> int:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in SCALARS:
        kind = node.tag.rpartition(":")[2]
        shown = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
        raise YamlError(
            f"{_named(node, path)}must be a mapping, list, text, number, true/false or null; YAML reads {shown} as "
            f"{kind}; write a text in quotes, and no `!!` tag"
        )
    plain, number = not node.style, node.tag.endswith(("int", "float"))
    if number and len(node.value) > LONGEST_NUMBER:
        raise YamlError(
            f"{_named(node, path)}a number must have at most {LONGEST_NUMBER} characters; round it"
        )
    if plain and number and NOT_DECIMAL.fullmatch(node.value):
        raise YamlError(
            f"{_named(node, path)}YAML reads {node.value} to another base than 10; write a decimal number, or a text "
            "in quotes"
        )
    if plain and node.tag == TEXT and (written := with_exponent(node.value)):
        raise YamlError(
            f"{_named(node, path)}YAML reads {node.value} as a text; write {written}, or a text in quotes"
        )
    return 1


def with_exponent(text: str) -> str | None:
    """Return `1e-4` as YAML takes it for a number, `1.0e-4`; None if it is none with an exponent."""
    found = EXPONENT.fullmatch(text)
    if found is None:
        return None
    sign, mantissa, exponent_sign, exponent = found.groups()
    return f"{sign}{mantissa}{'' if '.' in mantissa else '.0'}e{exponent_sign or '+'}{exponent}"


def _named(node: Any, path: str) -> str:
    return _line(node.start_mark) + (f"`{path[:200]}`: " if path else "")


def _line(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
