"""The documentation builds as a site, strictly: a link that leads nowhere is an error."""

import os
import re
import subprocess
import sys

import pytest

from cardamage import cli
from cardamage.config.experiment import Experiment
from tests.docs.test_pages import ROOT


def test_the_site_builds_and_has_every_page_key_and_command(tmp_path):
    pytest.importorskip("material")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"{name}.md" in listed for name in pages)
    commands = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    assert set(cli.COMMANDS) <= set(re.findall(r'<h2 id="([\w-]+)"', commands))
    keys = (site / "reference/config/index.html").read_text(encoding="utf-8")
    assert all(f"<code>{key}</code>" in keys for key in Experiment.model_fields)
