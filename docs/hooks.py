"""What the site has beside the pages of this folder: its front page and the reference.

A hook of MkDocs (see ../mkdocs.yml). The front page is the README; the reference is made from the
commands' parsers and from the schema of the experiment file, so it cannot be out of date.
"""

import argparse
import importlib
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cardamage import cli
from cardamage.config.experiment import Experiment

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": re.sub(r"\]\(docs/", "](", readme),
        "reference/commands.md": commands_page(),
        "reference/config.md": config_page(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to files outside of the site become their text."""
    outside = r"\.\./(?!\w+\.md)[^)\s]*|[A-Z]+(?:\.md)?|configs/[^)\s]*"
    return re.sub(rf"\[([^\]]+)\]\((?:{outside})\)", r"\1", markdown)


def commands_page() -> str:
    """The help of every command."""
    parts = ["# Every command and option", ""]
    for name, summary in cli.COMMANDS.items():
        command = importlib.import_module(f"cardamage.commands.{name}")
        parser = cli.Parser(
            prog=f"cardamage {name}",
            description=command.__doc__,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=90),
        )
        command.configure(parser)
        parts += [f"## {name}", "", f"{summary.capitalize()}.", "", "```text"]
        parts += [parser.format_help().rstrip(), "```", ""]
    return "\n".join(parts)


def config_page() -> str:
    """Every key of the experiment file, by section."""
    schema = Experiment.model_json_schema()
    parts = ["# Every key of an experiment file", "", *_section("The file", schema)]
    for name, section in sorted(schema["$defs"].items()):
        if "properties" in section:
            parts += _section(name, section)
    return "\n".join(parts)


def _section(name: str, section: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{key}` | {_kind(value)} | {_default(key, value, section)} | "
        f"{_cell(value.get('description', ''))} |"
        for key, value in section["properties"].items()
    ]
    about = section.get("description", "").partition("\n")[0]
    head = ["| key | value | default | |", "|---|---|---|---|"]
    return [f"## {name}", "", _cell(about), "", *head, *rows, ""]


def _kind(value: dict[str, Any]) -> str:
    """What a key may be, in few words."""
    if reference := value.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_kind, choices)))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{each}`" for each in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {_kind(value['items'])}" if "items" in value else "list"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[key]}" for key, sign in bounds.items() if key in value]
    return " ".join([value.get("type", "any"), *limits])


def _default(key: str, value: dict[str, Any], section: dict[str, Any]) -> str:
    if key in section.get("required", ()):
        return "required"
    match value.get("default", ""):
        case {"name": name}:
            return f"`{name}`"
        case "":
            return ""
        case default:
            return f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
