"""Fixtures over everything that a test of the kernels runs on, and the profiles of Hypothesis."""

import os

import helpers
import pytest
from hypothesis import settings

# No deadlines: a first call pays for pages and threads, and shared machines stall.
settings.register_profile("local", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Session scope, for these are plain values: Hypothesis can use them, and nothing is set up between examples.
@pytest.fixture(scope="session", params=helpers.VARIANTS, ids=str)
def variant(request):
    return request.param


@pytest.fixture(scope="session", params=helpers.DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@pytest.fixture(scope="session", params=helpers.ENGINES, ids=str)
def engine(request):
    return request.param


@pytest.fixture(scope="session", params=helpers.COMPILED, ids=str)
def compiled(request):
    return request.param


@pytest.fixture(scope="session", params=helpers.THREADS, ids="threads={}".format)
def threads(request):
    return request.param


@pytest.fixture(scope="session", params=(False, True), ids=("forwards", "reverse"))
def reverse(request):
    return request.param


@pytest.fixture(scope="session", params=(None, True), ids=("dense", "ragged"))
def ragged(request):
    """What `helpers.make` takes as `lengths`."""
    return request.param
