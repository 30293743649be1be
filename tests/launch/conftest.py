"""What tests of launching share."""

from tests.helpers.fake_runs import fake  # noqa: F401
