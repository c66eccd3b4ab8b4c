"""The small declared world of the loader's tests, for gates that read declarations."""

from tests.loading.conftest import world  # noqa: F401
