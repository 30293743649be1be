"""YAML as version 1.2's core schema reads it, with every duplicate key refused.

PyYAML follows version 1.1, where ``3e-4`` is a string, ``no`` is false, ``1:30`` is ninety, and
the last of two equal keys wins without a word.

Aliases are kept, but a document that contains itself, or that a few of them blow up beyond
:data:`MAX_VALUES`, is refused before anything is built from it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

from cardamage.errors import ConfigError

MAX_VALUES = 100_000
"""Most keys and values of a document, every alias counted as if it were written out."""

MAX_BYTES = 1 << 20
"""A larger file is refused: no config is, and reading it takes minutes."""

MAX_DIGITS = 100
"""Longer whole numbers are refused: Python would not write the longest of them."""

MAX_BRACKETS = 64
"""Most brackets and braces that may be open at a time."""

_NO_TEXT = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\U0010ffff]")
"""What may not stand in a YAML file, and so may not come in by an escape such as ``\\0``."""

_CORE_TAGS = ("null", "str", "seq", "map")  # those that PyYAML constructs as 1.2 does


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and unique keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own declaration
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _CORE_TAGS
    }

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # noqa: N803
        if self.flow_level >= MAX_BRACKETS:  # PyYAML would find out too, after many seconds
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values_in(node, {}) > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"the document stands for more than {MAX_VALUES} values; "
                f"write fewer aliases",
                problem_mark=node.start_mark,
            )
        return node

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


def _values_in(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values a node stands for; ``known`` holds the nodes met before, open ones as None.

    Each node is counted once and its count reused, so this takes no longer than reading the text.
    """
    if id(node) in known:
        values = known[id(node)]
        if values is None:
            raise yaml.MarkedYAMLError(
                problem="an alias stands for a value that contains it; write the value out",
                problem_mark=node.start_mark,
            )
        return values
    known[id(node)] = None
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    values = 1 + sum(_values_in(child, known) for child in children)
    known[id(node)] = values
    return values


def _construct_str(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if found := _NO_TEXT.search(text):
        raise yaml.MarkedYAMLError(
            problem=f"the character {found[0]!a} is no text; remove it",
            problem_mark=node.start_mark,
        )
    return text


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too long; {MAX_DIGITS} are allowed")
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if text.lower() not in ("true", "false"):  # only an explicit tag, !!bool yes, comes here
        raise ValueError(f'"{text}" is not a boolean; write true or false')
    return text.lower() == "true"


_CORE_SCHEMA = (
    ("tag:yaml.org,2002:str", None, _construct_str),
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
    if _pattern is not None:
        _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)
    if _construct is not None:
        _Loader.add_constructor(_tag, _construct)


def load(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, a key is given twice or is not a string, or the
            document holds a tag other than the core schema's.
        ValueError: a number or an explicit boolean is none, or too long.
        RecursionError: it is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OverflowError:
        raise ValueError("an escape such as \\UFFFFFFFF stands for no character") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file; correct the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: has more than {MAX_BYTES >> 20} MiB; no config is that large")
    try:
        values = load(text)
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; a config has three levels") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise ConfigError(f"{path}:{line} {_complaint(error)}") from None
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path}: is {kind}; a config is a mapping of keys to values")
    return values


def _complaint(error: Exception) -> str:
    """What is wrong with a document, in one line, and what to do where PyYAML's words hide it."""
    problem: str = getattr(error, "problem", None) or " ".join(str(error).split())
    if r"'\t'" in problem:
        return "a tab stands where YAML allows none; indent with spaces"
    if "found another document" in problem:
        return "a second document begins; a config is one, so remove the line ---"
    return problem


def dump(value: Any) -> str:
    """``value`` as YAML block text that :func:`load` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


# libyaml writes twenty times faster, which counts where hundreds of runs are submitted at once.
_FastestDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FastestDumper):  # type: ignore[misc]  # chosen while running
    """SafeDumper whose floats and strings survive the 1.2 reading above."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if _is_string_without_quotes(value) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


@functools.lru_cache(maxsize=1024)
def _is_string_without_quotes(text: str) -> bool:
    try:
        return isinstance(load(text), str)
    except ValueError:
        return False  # a number that is too long
    except (yaml.YAMLError, RecursionError):
        return True  # the dumper sees that for itself


_Dumper.add_representer(str, _represent_str)
