import pytest

from nni_s3d import errors
from nni_s3d.errors import S3DError, first_line, one_line, place_of, print_traceback

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


def test_an_error_is_one_bearable_line():
    assert one_line(ValueError("a\nb\x1b[31mc\td")) == "a b\\x1b[31mc\\td"
    assert one_line(ValueError("ä" * 10)) == "ä" * 10
    assert len(one_line(ValueError("x" * 10**6))) < 1010


def test_the_place_of_an_error_is_its_last_line():
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x")
    assert place_of(caught.value).startswith(" (test_errors.py:")
    assert place_of(ValueError()) == ""


def test_a_traceback_is_shown_where_it_is_wanted(capsys, monkeypatch):
    monkeypatch.delenv("NNI_S3D_TRACEBACK", raising=False)
    print_traceback(ValueError("x"))
    assert capsys.readouterr().err == ""
    print_traceback(ValueError("x"), wanted=True)
    monkeypatch.setenv("NNI_S3D_TRACEBACK", "1")
    print_traceback(ValueError("y"))
    assert capsys.readouterr().err == "ValueError: x\nValueError: y\n"
