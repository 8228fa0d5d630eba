from tests.finished import experiment, finished  # noqa: F401
