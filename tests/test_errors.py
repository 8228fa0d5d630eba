import pytest

from nni_s3d import errors
from nni_s3d.errors import S3DError, first_line

BUILT_IN = {
    "ConfigError": ValueError,
    "ModelError": ValueError,
    "DataError": FileNotFoundError,
    "StoreError": RuntimeError,
    "DamageError": RuntimeError,
    "DivergenceError": ArithmeticError,
    "ReportError": RuntimeError,
}


def test_every_error_is_one_of_this_package_and_one_of_python():
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and kind is not S3DError}
    assert kinds.keys() == BUILT_IN.keys()
    for name, kind in kinds.items():
        assert issubclass(kind, S3DError)
        assert issubclass(kind, BUILT_IN[name])


@pytest.mark.parametrize(
    ("message", "line"), [("one", "one"), ("\n one\ntwo\n", "one"), ("", "no reason"), (" \n ", "no reason")]
)
def test_of_a_long_explanation_the_first_line_counts(message, line):
    assert first_line(ValueError(message)) == line
