"""A library that makes files fail for the program it is preloaded into; see ``failing_disk.c``."""

import shutil
import subprocess
from pathlib import Path


def build(folder: Path) -> Path | None:
    """The library, built in a folder; None where there is no compiler."""
    if not (compiler := shutil.which("cc")):
        return None
    library, source = folder / "failing_disk.so", Path(__file__).with_suffix(".c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    return library
