"""YAML as version 1.2's core schema reads it, with every duplicate key refused.

PyYAML follows version 1.1, where ``3e-4`` is a string, ``no`` is false, ``1:30`` is ninety, and
the last of two equal keys wins without a word.
"""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and unique keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own declaration

    def construct_mapping(  # PyYAML's signature
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is not a string; put it in quotes",
                    problem_mark=key_node.start_mark,
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key}" is given twice; keep one of them',
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() == "true"


_CORE_SCHEMA = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", None),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", _construct_bool),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _construct_int),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _construct_float,
    ),
)
for _tag, _pattern, _construct in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)
    if _construct is not None:
        _Loader.add_constructor(_tag, _construct)


def load(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, a key is given twice or is not a string, or the
            document holds a tag other than the core schema's.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def dump(value: Any) -> str:
    """``value`` as YAML block text that :func:`load` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """SafeDumper whose floats and strings survive the 1.2 reading above."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain_is_string = isinstance(_plain(value), str)
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if plain_is_string else "'"
    )


def _plain(value: str) -> Any:
    try:
        return load(value)
    except yaml.YAMLError:
        return value


_Dumper.add_representer(str, _represent_str)
