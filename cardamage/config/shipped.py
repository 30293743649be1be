"""The experiments, cluster profiles and schemas that come with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _find() -> Path:
    installed = _PACKAGE / "configs"  # in a wheel; in a clone they are a top folder
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


CONFIGS = _find()
"""The folder of the shipped experiment, sweep and study files."""

RECIPES = CONFIGS / "recipes"
"""The folder of experiments that are known to give a good model."""

PROFILES = CONFIGS / "cluster"
"""The folder of the profiles that ``--cluster`` knows by name."""

SCHEMA = CONFIGS / "experiment.schema.json"
"""The JSON Schema of an experiment file."""


def shipped_names() -> list[str]:
    """The names of the shipped experiments, sweeps and studies."""
    return sorted(path.stem for folder in (CONFIGS, RECIPES) for path in folder.glob("*.yaml"))


def shipped_file(name: str) -> Path | None:
    """The shipped file of a name; None when there is none."""
    files = [folder / f"{name}.yaml" for folder in (CONFIGS, RECIPES)]
    return next(filter(Path.is_file, files), None)
