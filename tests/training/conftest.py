import pytest

from tests.training.runs import finish, make_cache, start, train


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A prepared cohort of incomplete subjects."""
    return make_cache(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def straight(cache, tmp_path_factory):
    """Four epochs in one go; do not change it."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert finish(start(train, cache, run)) == [0]
    return run
