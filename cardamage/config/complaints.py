"""What is wrong with a config, in one line: pydantic's complaints in a person's words.

Each line names the key's path as it stands in the file, what is allowed there, and what was given
or the nearest valid name.
"""

import json
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cardamage.errors import did_you_mean

_LONGEST_VALUE = 60  # characters of a refused value that a message shows


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """One complaint of validating a config against ``root``, and how many more keys have one."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for complaint in error.errors(include_url=False):
        keys, _ = _locate(complaint["loc"], root)
        by_key.setdefault(".".join(keys), []).append(complaint)
    # Of a required key that is misspelled, the spelling tells more than that it is missing.
    chosen = min(by_key.values(), key=lambda complaints: complaints[0]["type"] != "extra_forbidden")
    # A value that fits no member of a union brings a complaint for each; the deepest is about the
    # member that was meant.
    first = max(chosen, key=lambda complaint: len(complaint["loc"]))
    more = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
    return _in_words(first, root) + more


def _in_words(complaint: ErrorDetails, root: type[BaseModel]) -> str:
    location, given, context = complaint["loc"], complaint["input"], complaint.get("ctx", {})
    keys, section = _locate(location, root)
    where = ".".join(keys)
    field = section.model_fields.get(keys[-1]) if section else None
    match complaint["type"]:
        case "extra_forbidden":
            allowed = list(section.model_fields) if section else []
            hint = did_you_mean(keys[-1], allowed) or _elsewhere(keys, root)
            text = f"unknown key{hint}; allowed here: {', '.join(allowed)}"
        case "missing" if isinstance(location[-1], str):
            text = "this key is required"
        case "union_tag_not_found":
            where, text = f"{where}.name", "this key is required"
        case "union_tag_invalid":
            where, text = f"{where}.name", _unknown(context["tag"], context["expected_tags"])
        case "literal_error":
            text = _unknown(given, context["expected"])
        case "value_error":
            text = str(context["error"])
        case kind:
            place = f"[{location[-1]}]"
            if isinstance(location[-1], int) and kind != "missing" and not where.endswith(place):
                where += place
            wanted = _wanted(kind, complaint["msg"], field.description if field else None)
            text = f"{wanted}; it is {_shown(given)}{_remedy(kind, where, given)}"
    return f"{where}: {text}" if where else text


def _elsewhere(keys: list[str], root: type[BaseModel]) -> str:
    """Where in the schema a key stands that was written in the wrong place."""
    key = keys[-1]
    for name, field in root.model_fields.items():
        for section in _sections(field.annotation):
            if key in section.model_fields and key != "name" and keys != [name, key]:
                return f' (did you mean "{name}.{key}"?)'
    return ""


def _remedy(kind: str, where: str, given: Any) -> str:
    """What to write instead of the values that people try first."""
    match kind:
        case "model_type" | "model_attributes_type" | "dict_type" if isinstance(given, str):
            return f"; write {where}: {{name: {given}}}, or {where}.name={given}"
        case "tuple_type" | "list_type" if isinstance(given, int | str):
            return f"; write [{given}, {given}]" if kind == "tuple_type" else f"; write [{given}]"
        case "less_than_equal" if isinstance(given, int | float) and 2 <= given <= 100:
            return f"; for {given:g} % write {given / 100:g}" if where == "data.subset" else ""
    return ""


def _wanted(kind: str, message: str, description: str | None) -> str:
    """What a value has to be, with the field's description where the shape is wrong."""
    meaning = f" ({description.removesuffix('.')})" if description else ""
    match kind:
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must hold keys and values"
        case "list_type" | "tuple_type":
            return "must be a list" + meaning
        case "missing" | "too_short":
            return "has too few values" + meaning
        case "too_long":
            return "has too many values" + meaning
        case "string_pattern_mismatch":
            return "has characters that are not allowed" + meaning
        case _:  # "Input should be greater than 0", "String should have at most 100 characters"
            return "must " + message.rpartition(" should ")[2]


def _unknown(given: Any, expected: str) -> str:
    """Complain about a name that is none of ``expected``, as in ``'adam', 'adamw' or 'sgd'``."""
    names = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
    hint = did_you_mean(str(given), names)
    return f"{_shown(given)} is unknown{hint}; allowed: {', '.join(names)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _locate(
    location: tuple[int | str, ...], root: type[BaseModel]
) -> tuple[list[str], type[BaseModel] | None]:
    """The keys a person typed, outermost first, and the section that holds the last of them.

    Pydantic puts the tag of a discriminated union, the name of a union's member and the place in a
    list into the location; none of them is a key of the schema. A list of sections is told by the
    place, as in ``compare[0]``.
    """
    keys: list[str] = []
    holder: type[BaseModel] | None = None
    options: list[type[BaseModel]] = [root]
    elements: list[type[BaseModel]] | None = None
    for part in location:
        if elements is not None:
            options, elements = elements, None
            if isinstance(part, int):
                keys[-1] += f"[{part}]"
            else:
                keys.append(part)
            continue
        if len(options) != 1:
            options = [o for o in options if part in get_args(o.model_fields["name"].annotation)]
            continue
        holder = options[0]
        keys.append(str(part))
        field = holder.model_fields.get(str(part))
        options = _sections(field.annotation) if field else []
        elements = _elements(field.annotation) if field else None
    return keys, holder


def _elements(annotation: Any) -> list[type[BaseModel]] | None:
    """The section classes of the values of a mapping, or of a list of sections; None for others."""
    if get_origin(annotation) is dict:
        return _sections(get_args(annotation)[-1])
    if get_origin(annotation) is list:
        return _sections(get_args(annotation)[-1]) or None
    return None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The section classes an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [s for option in get_args(annotation) for s in _sections(option)]
    return []
