"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import nni_s3d as s3d
from nni_s3d import growth

MODULES = [module.name for module in pkgutil.walk_packages(growth.__path__, "nni_s3d.growth.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert not doctest.testmod(importlib.import_module(name)).failed


@pytest.mark.parametrize("public", [s3d.SplittingOperator, s3d.PlainSplittingOperator, s3d.spectrum])
def test_main_names_have_an_example(public):
    (examples,) = [test.examples for test in doctest.DocTestFinder(recurse=False).find(public)]
    assert examples
