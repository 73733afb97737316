"""What all sections of the params share: strict parsing, field types, the canonical form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dmlcore.core.errors import DataError, without_passwords
from dmlcore.core.yaml_file import load_yaml, with_exponent

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$", max_length=64)]
"""Without a dot: DVC takes it for the separator of two keys of params.yaml."""

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?")

T = TypeVar("T", bound=BaseModel)


class ConfigError(ValueError):
    """A params file breaks the schema; the message lists each path, rule and value."""


class Strict(BaseModel):
    """A section: frozen; an unknown key, a wrong type or a value out of range is an error before anything runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def parse(schema: type[T], values: Mapping[str, Any], where: str) -> T:
    """Validate `values` against `schema`; `where` names their origin in errors.

    Raises:
        ConfigError: `values` break the schema; one line per fault.
    """
    try:
        # Through JSON: in strict mode pydantic takes a YAML list for a tuple only there.
        return schema.model_validate_json(json.dumps(values, allow_nan=True))
    except ValidationError as error:
        lines = [_fault(fault) for fault in error.errors()]
        raise ConfigError(f"{where}: {len(lines)} fault(s)\n" + "\n".join(lines)) from None


def _fault(fault: Any) -> str:
    path, value = ".".join(map(str, fault["loc"])), fault["input"]
    return without_passwords(f"  `{path}`: {fault['msg']}; got {value!r}")[:400] + _hint(fault["type"], value)


def _hint(kind: str, value: Any) -> str:
    """Say how to write a value that YAML reads as another type: `1e-4` is a text, `no` is false."""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "; write it in quotes"
    if kind not in ("float_type", "int_type") or not isinstance(value, str):
        return ""
    if written := with_exponent(value):
        return f"; write {written}" if kind == "float_type" else ""
    return "; write it without quotes" if NUMBER.fullmatch(value) else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a params file.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    try:
        values = load_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such params file; give the path of a params.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except DataError as error:  # of the text, and it names the file
        raise ConfigError(f"{error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections, got {type(values).__name__}")
    return values


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of a JSON object, the `object_pairs_hook` of `json.loads`: a key given twice is a ValueError."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice; keep one")
    return values


def canonical(config: BaseModel) -> dict[str, Any]:
    """Return the config as plain JSON values without those that are None: a new optional field keeps old trial keys."""
    return config.model_dump(mode="json", exclude_none=True)
