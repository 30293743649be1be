"""Where a run may go: the cluster profiles ``configs/cluster/*.yaml``, and their schema."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cardamage.complaints import explain
from cardamage.config import Section
from cardamage.errors import ConfigError
from cardamage.yaml12 import read_mapping

PROFILES = Path(__file__).resolve().parents[1] / "configs" / "cluster"
"""The folder of the profiles that ``--cluster`` knows by name."""

LOCAL = "local"
"""The profile that is taken when none is named."""

Processes = Annotated[int, Field(ge=1, le=64)]


class LocalTrain(Section):
    """Training on this machine."""

    processes: Processes | None = None
    """Processes that train together; null for one a GPU, or one where there is no GPU."""


class LocalTest(Section):
    """Testing on this machine."""

    __test__ = False  # not a pytest class

    processes: Processes = 1
    """Processes that test each checkpoint together."""


class LocalProfile(Section):
    """This machine: the stages run one after another."""

    backend: Literal["local"]
    """What runs the stages."""
    train: LocalTrain = LocalTrain()
    """Training on this machine."""
    test: LocalTest = LocalTest()
    """Testing on this machine."""


def load_profile(name: str) -> LocalProfile:
    """The profile of that name, or of that file when ``name`` ends in ``.yaml``.

    Raises:
        ConfigError: there is no such profile, or it does not fit the schema.
    """
    path = Path(name) if name.endswith(".yaml") else PROFILES / f"{name}.yaml"
    if path.parent == PROFILES and not path.is_file():
        names = sorted(found.stem for found in PROFILES.glob("*.yaml"))
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        raise ConfigError(
            f'--cluster "{name}" is unknown{hint}; there are: {", ".join(names)}; '
            f"or give the path of a profile that ends in .yaml"
        )
    try:
        return LocalProfile.model_validate(read_mapping(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, LocalProfile)}") from None
