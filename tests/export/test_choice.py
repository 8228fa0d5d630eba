import pytest

from nni_s3d.errors import ReportError
from nni_s3d.export.choice import choose
from nni_s3d.report.networks import networks_of


def test_the_best_on_validation_is_chosen_within_limits(experiment):
    found = networks_of("abcd1234", experiments_dir=experiment.root)
    first, second = (one.network.metrics for one in found)
    best = max(found, key=lambda one: one.network.metrics["default"])
    assert choose(found) == best
    assert first["macs"] < second["macs"]
    assert choose(found, under_macs=first["macs"]).trial == "trial0"
    assert choose(found, under_params=first["params"]).trial == "trial0"
    assert choose(found, trial="trial1").trial == "trial1"
    with pytest.raises(ReportError, match=r"--under-macs: expected at least 5.50k, the smallest, got 100"):
        choose(found, under_macs=100)
    with pytest.raises(ReportError, match="trial 'x': expected one of trial0, trial1"):
        choose(found, trial="x")
