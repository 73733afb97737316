"""What all sections share: strict parsing, field types, the canonical form.

Every section is frozen and strict: an unknown key, a wrong type or a value out of range is refused before anything
runs, with the path, the rule and the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]


DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$", max_length=64)]
"""Without a dot: DVC reads one as the next key of params.yaml."""


PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


T = TypeVar("T", bound=BaseModel)


class ConfigError(ValueError):
    """A params file that breaks the schema; the message lists each path, rule and value."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# ---------------------------------------------------------------------------------------------- loading


def parse(schema: type[T], values: Mapping[str, Any], where: str) -> T:
    """Validate `values` against `schema`; `where` names their origin in errors.

    Raises:
        ConfigError: one line per fault with its path, rule and value.
    """
    try:
        return schema.model_validate_json(json.dumps(values, allow_nan=True))
    except ValidationError as error:
        lines = [_fault(fault) for fault in error.errors()]
        raise ConfigError(f"{where}: {len(lines)} fault(s)\n" + "\n".join(lines)) from None


def _fault(fault: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    return f"  `{path}`: {fault['msg']}; got {fault['input']!r}"[:400]


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such params file; give the path of a params.yaml") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections, got {type(values).__name__}")
    return values


def canonical(config: BaseModel) -> dict[str, Any]:
    """The config as plain JSON values, None left out, so that a new optional field keeps old keys."""
    return config.model_dump(mode="json", exclude_none=True)
