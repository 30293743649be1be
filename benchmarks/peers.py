"""Where the packages are that this project is compared with; the project itself needs none."""

import importlib
import os
import sys
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

FOLDER = Path(os.environ.get("CARDAMAGE_PEERS") or Path(__file__).parents[1] / ".venv" / "peers")


def peer(name: str, package: str) -> ModuleType:
    """The module of a peer, for this process alone.

    Exits where it is missing, and says how to install it.
    """
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))  # streaming needs an older huggingface_hub
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        sys.exit(
            f"{package} is compared with, and {error.name} is missing; run `make peers`, which "
            f"installs benchmarks/peers.txt into {FOLDER}"
        )


def version_of(package: str) -> str:
    """The version of an installed peer, behind its name."""
    for found in distributions(path=[str(FOLDER)]):
        if found.metadata["Name"] == package:
            return f"{package} {found.version}"
    return package
