"""Whether the packages that ``track`` needs are there, asked before anything is started."""

from collections.abc import Sequence
from importlib.util import find_spec

from cardamage.errors import ConfigError


def require_installed(trackers: Sequence[str]) -> None:
    """Refuse trackers whose package, which has the tracker's name, is not installed.

    Raises:
        ConfigError: one is not.
    """
    for name in trackers:
        if find_spec(name) is None:
            raise ConfigError(
                f'track: "{name}" is not installed here; `pip install {name}`, or all trackers '
                f"by `pip install 'cardamage-runner[track]'`, or leave it out"
            )
