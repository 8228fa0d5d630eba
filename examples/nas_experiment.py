"""S3D and NNI's own strategies as `NasExperiment`s, on one and the same task.

    python examples/nas_experiment.py [--strategy s3d|s3d_paper|s2d|random|grid|tpe|evolution]
                                      [--task configs/digits/task.yml] [--steps 5] [--store PATH] [--port 8080]

Watch it at http://localhost:PORT while it runs; `nni-s3d report` prints the table afterwards. NNI's web server listens
on all interfaces and asks for no password. On the store of an experiment that was stopped, by default the folder
~/nni-experiments/ID/store, what was finished there is not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.strategy import TPE, GridSearch, Random, RegularizedEvolution, Strategy

from nni_s3d.plugin.experiment import TaskExperiment
from nni_s3d.plugin.space import TaskSpace
from nni_s3d.plugin.strategy import S3D
from nni_s3d.plugin.trial import evaluate_model

PAPER = {
    "phase_budget": "epochs",
    "epsilon": 0.01,
    "relative": False,
    "policy": {"name": "top_fraction", "fraction": 0.35},
}
STRATEGIES: dict[str, Callable[[argparse.Namespace], Strategy]] = {
    "s3d": lambda args: S3D(steps=args.steps, seed=args.seed),
    "s3d_paper": lambda args: S3D(steps=args.steps, seed=args.seed, c=1.3, **PAPER),
    "s2d": lambda args: S3D(steps=args.steps, seed=args.seed, c=1.0, **PAPER),
    "random": lambda args: Random(seed=args.seed),
    "grid": lambda args: GridSearch(seed=args.seed),
    "tpe": lambda args: TPE(seed=args.seed),
    "evolution": lambda args: RegularizedEvolution(population_size=4, sample_size=2, seed=args.seed),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="s3d")
    parser.add_argument("--task", default="configs/digits/task.yml")
    parser.add_argument("--steps", type=int, default=5, help="growth steps; the others get one trial more than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="path or URL of the artefacts (default: a folder of the experiment)")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args(arguments)

    strategy = STRATEGIES[args.strategy](args)
    experiment = TaskExperiment(TaskSpace(args.task), FunctionalEvaluator(evaluate_model, store=args.store), strategy)
    experiment.config.experiment_name = f"{args.strategy} as a NasExperiment"
    if not isinstance(strategy, S3D):  # growth ends by itself
        experiment.config.max_trial_number = args.steps + 1
    experiment.run(port=args.port)
    for best in experiment.export_top_models(1, formatter="dict"):
        print(f"experiment {experiment.id}: best {best}")
    experiment.stop()


if __name__ == "__main__":
    main()
