"""How a mistake of a user is told."""


def one_line(error, message):
    assert error.startswith("nni-s3d: error: ")
    assert error.count("\n") == 1
    assert message in error
