"""params.yaml, one frozen pydantic model per section."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from plumbline.common.errors import UserError

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """A section of params.yaml: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(Section):
    """An entry of which only the name is used."""

    model_config = ConfigDict(frozen=True, extra="ignore")


SectionType = TypeVar("SectionType", bound=Section)


def load_section(name: str, model: type[SectionType], path: Path = PARAMS, optional: bool = False) -> SectionType:
    """Return section `name` ("split", or "candidates.simple_cnn") of `path` as `model`; `optional`: it may be missing.

    Raises UserError naming the file, the section and the key that is missing, unknown or out of range.
    """
    value = read_params(path)
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
    value = read_params(path).get(name)
    if optional and not value:
        return {}
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} has no entries under '{name}': add one, or restore params.yaml from Git.")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{path}: {name}: YAML reads {key!r} here, which is no name: write the name in quotes.")
    return {key: parse_section(f"{name}.{key}", item or {}, model, path) for key, item in value.items()}


def name_given(*sections: str, path: Path = PARAMS) -> str:
    """Return the one entry of `sections` that the command line names, as `python -m stages.train simple_cnn` does."""
    if len(sys.argv) != 2:
        known = ", ".join(str(name) for section in sections for name in read_params(path).get(section) or {})
        which = " or ".join(sections)
        raise UserError(f"say which of {path}'s {which} this is for, one by name: {known or 'there is none yet'}.")
    return sys.argv[1]


def parse_section(name: str, value: Any, model: type[SectionType], path: Path = PARAMS) -> SectionType:
    """Validate one section's value; UserError names the first key that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        raise UserError(f"{path}: {key}: {first['msg']} (got {first.get('input')!r}).") from None


def with_value(text: str, key: str, value: Any) -> str:
    """Return params.yaml's text with `key` ("evaluate.violation_class") set to a plain `value`; comments stay.

    Raises UserError where the entry is not on a line of its own, or anything else would change.
    """
    section, _, name = key.rpartition(".")
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, section.split("."))
    shown = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).removesuffix("...\n").strip()
    indent = "  " * (section.count(".") + 1)
    place = _line_of(lines, key.split("."))
    if start is None:
        raise UserError(f"{PARAMS} has no section {section} as a line of its own: set {key} to {shown} by hand.")
    if place is None:
        lines.insert(start + 1, f"{indent}{name}: {shown}\n")
    else:
        comment = re.search(r"\s#.*$", lines[place].rstrip("\n"))
        lines[place] = f"{indent}{name}: {shown}{comment.group(0) if comment else ''}\n"
    written = "".join(lines)
    try:
        safe = yaml.safe_load(written) == _replaced(yaml.safe_load(text), key.split("."), value)
    except yaml.YAMLError:
        safe = False
    if not safe:
        raise UserError(f"{PARAMS}: {key} could not be rewritten safely: set it to {shown} by hand.")
    return written


def _line_of(lines: list[str], keys: list[str]) -> int | None:
    """The line of a key, with each level of keys indented by two spaces; None where there is no such line."""
    first, last = 0, len(lines)
    for depth, key in enumerate(keys):
        found = re.compile(rf"{'  ' * depth}{re.escape(key)}:(\s|$)")
        place = next((n for n in range(first, last) if found.match(lines[n])), None)
        if place is None:
            return None
        inside = re.compile(rf"(?!{'  ' * (depth + 1)})\s*[^\s#]")
        first = place + 1
        last = next((n for n in range(first, last) if inside.match(lines[n])), last)
    return first - 1


def _replaced(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    inner = value if len(keys) == 1 else _replaced(values.get(keys[0]) or {}, keys[1:], value)
    return {**values, keys[0]: inner}


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the whole of params.yaml as plain data; UserError where it is missing or no YAML."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's top folder.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start + 1}): save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no sections: restore it from Git.")
    return value
