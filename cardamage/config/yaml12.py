"""YAML as version 1.2's core schema reads it, with every duplicate key refused.

PyYAML follows version 1.1, where ``3e-4`` is a string, ``no`` is false, ``1:30`` is ninety, and
the last of two equal keys wins without a word.
"""

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cardamage.errors import ConfigError

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and unique keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own declaration
    yaml_constructors = {  # noqa: RUF012 - those that construct as 1.2 does; None refuses the rest
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (f"{_TAG}null", f"{_TAG}seq", f"{_TAG}map", None)
    }

    _anchors = 0  # of the values that are open

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Else a few aliases make a value that contains itself, or fills the memory.
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) and self._anchors:
            _refuse(event, "an alias is inside a value with an anchor; write the value out")
        anchored = bool(event.anchor)
        self._anchors += anchored
        node = super().compose_node(parent, index)
        self._anchors -= anchored
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
                _refuse(key_node, f"the key {key!r} is not a string; put it in quotes")
            if key in seen:
                _refuse(key_node, f'the key "{key}" is given twice; keep one of them')
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refuse(node: Any, problem: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _construct_str(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if found := loader.NON_PRINTABLE.search(text):  # by an escape such as \0
        _refuse(node, f"the character {found[0]!a} is no text; remove it")
    return text


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node)).lower()
    if text not in ("true", "false"):  # only an explicit tag, !!bool yes, comes here
        _refuse(node, f'"{text}" is not a boolean; write true or false')
    return text == "true"


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    # Python does not write numbers of thousands of digits; longer ones are floats or text.
    "int": r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}

# libyaml writes twenty times faster, which counts where hundreds of runs are submitted at once.
_FastestDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FastestDumper):  # type: ignore[misc]  # chosen while running
    """SafeDumper that also quotes the text that is something else by the patterns above."""


for _name, _pattern in _PATTERNS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)
_Loader.add_constructor(f"{_TAG}str", _construct_str)
_Loader.add_constructor(f"{_TAG}bool", _construct_bool)
_Loader.add_constructor(f"{_TAG}int", _construct_int)
_Loader.add_constructor(f"{_TAG}float", _construct_float)


def load(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, a key is given twice or is not a string, or the
            document holds a tag other than the core schema's.
        ValueError: a value cannot be what its tag says, or the document is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OverflowError:
        raise ValueError("an escape such as \\UFFFFFFFF stands for no character") from None
    except RecursionError:
        raise ValueError("is nested too deeply; a config has three levels") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file; correct the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        values = load(text)
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
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


def inline(value: Any) -> str:
    """A value on one line, as people write it: ``{name: dice, weight: 0.5}``, ``true``."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=1 << 30,
    )
    return text.removesuffix("...\n").strip()
