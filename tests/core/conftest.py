import pytest

from tests.core.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
