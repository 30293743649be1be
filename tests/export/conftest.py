"""What tests of exports share: a run whose network is known."""

from tests.commands.conftest import bright  # noqa: F401
