def pytest_generate_tests(metafunc):
    if metafunc.cls is not None and "build" in metafunc.fixturenames:
        names, *cases = zip(*metafunc.cls.CASES, strict=True)
        metafunc.parametrize(("build", "shape"), list(zip(*cases, strict=True)), ids=names)
