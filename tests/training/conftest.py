import pytest

from tests.training.runs import finish, make_cache, start, train
from tests.training.segmenting import make_labelled, segment


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


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """A prepared cohort of incomplete subjects with labels."""
    return make_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="session")
def pretrained(labelled, tmp_path_factory):
    """An epoch of pre-training on it; do not change it."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    assert finish(start(train, labelled, run, epochs=1)) == [0]
    return run


@pytest.fixture(scope="session")
def segmenter(labelled, tmp_path_factory):
    """Four epochs of fine-tuning from nothing in one go, evaluated; do not change it."""
    run = tmp_path_factory.mktemp("segmenter") / "run"
    assert finish(start(segment, labelled, run)) == [0]
    return run
