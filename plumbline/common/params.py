"""params.yaml, one frozen pydantic model per section."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from plumbline.common.errors import UserError

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """A section of params.yaml: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SectionType = TypeVar("SectionType", bound=Section)


def load_section(name: str, model: type[SectionType], path: Path = PARAMS, optional: bool = False) -> SectionType:
    """Return section `name` ("split", or "candidates.simple_cnn") of `path` as `model`; `optional`: it may be missing.

    Raises UserError naming the file, the section and the key that is missing, unknown or out of range.
    """
    value = _read(path)
    for key in name.split("."):
        if optional and isinstance(value, dict) and key not in value:
            return model()
        if not isinstance(value, dict) or key not in value:
            raise UserError(f"{path} has no section '{name}': add it, or restore params.yaml from Git.")
        value = value[key]
    return parse_section(name, value if value is not None else {}, model, path)


def load_sections(
    name: str, model: type[SectionType], path: Path = PARAMS, optional: bool = False
) -> dict[str, SectionType]:
    """Return a section that maps names to `model`s, such as `candidates`; an `optional` one may be empty or missing."""
    value = _read(path).get(name)
    if optional and not value:
        return {}
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} has no entries under '{name}': add one, or restore params.yaml from Git.")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{path}: {name}: YAML reads {key!r} here, which is no name: write the name in quotes.")
    return {key: parse_section(f"{name}.{key}", item or {}, model, path) for key, item in value.items()}


def parse_section(name: str, value: Any, model: type[SectionType], path: Path = PARAMS) -> SectionType:
    """Validate one section's value; UserError names the first key that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        raise UserError(f"{path}: {key}: {first['msg']} (got {first.get('input')!r}).") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's top folder.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no sections: restore it from Git.")
    return value
