"""docs/datasets.md tells the truth: its commands are run, and its findings are all there are."""

import re
import shlex
import subprocess
from pathlib import Path

from cardamage.config import loading, yaml12
from cardamage.data.coco import findings

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def plain(text: str) -> list[str]:
    """Lines without what depends on the bytes of a JPEG, and so on the version of its encoder."""
    text = re.sub(r"[0-9a-f]{32}", "<hash>", text)
    text = re.sub(r"\d+ images of \d+ photos", "<some> images of <some> photos", text)
    return [line.rstrip() for line in text.splitlines()]


def test_every_command_prints_what_the_page_says(program):
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE)
    assert len(commands) > 6
    for command, expected in commands:
        words = shlex.split(command)
        if words[0] == "cardamage":
            result = program.inside(f"jobs/{words[1]}.py", *words[2:])
        else:
            result = subprocess.run(
                command, shell=True, cwd=program.folder, capture_output=True, text=True, check=True
            )
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        printed = iter(plain(result.stdout) + plain("\n".join(errors)))
        for line in plain(expected):
            assert line == "..." or line in printed, (command, line)  # in this order


def test_every_finding_is_named():
    kinds = {kind for group in findings._KINDS.values() for kind in group}
    listed = PAGE[PAGE.index("- **Errors**") : PAGE.index("Copies are found")]
    assert kinds <= set(re.findall(r"`([^`]+)`", listed))


def test_every_example_of_classes_is_one():
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        data = {"source": "cars", **yaml12.load(line)}
        values = {"name": "x", "data": data, "model": {"name": "unet"}, "optim": {"name": "adam"}}
        loading.parse(values)
