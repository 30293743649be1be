"""Train, test and compare segmentation models for car damage.

The public API: :func:`load_run`, :func:`load_model` and :func:`submit`; see ``docs/api.md``.
Importing it is quick: torch comes with the first model.
"""

from typing import TYPE_CHECKING, Any

from cardamage.version import __version__

__all__ = ["Run", "Submitted", "__version__", "load_model", "load_run", "submit"]

if TYPE_CHECKING:
    from cardamage.api import Run, Submitted, load_model, load_run, submit


def __getattr__(name: str) -> Any:
    if name in __all__:
        from cardamage import api  # noqa: PLC0415 - commands do without it

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
