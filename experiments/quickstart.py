"""The whole road: simulate, train the experts, calibrate, align, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

import json

from ml_collections import ConfigDict

from experiments import alignment, evaluation, reporting, setup, stages


def is_complete(run: setup.Run, config: ConfigDict) -> bool:
  """Whether the run folder holds the results of this config.

  Raises:
    ValueError: the folder was begun with another config.
  """
  if not (run / 'config.json').exists():
    return False
  found, now = json.loads((run / 'config.json').read_text()), json.loads(config.to_json())
  different = sorted(k for k in {*found, *now} if found.get(k) != now.get(k))
  if different:
    raise ValueError(f'{run.folder}: was begun with another config (different: {different}); use '
                     'another --workdir or the settings of the first run')
  return (run / 'results.json').exists() and (run / 'report.html').exists()


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  run = setup.Run(workdir)
  if is_complete(run, config):
    print(f'The run is complete: {run / "report.html"}')
    return
  run.start(config, 'quickstart')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, truth = setup.load_data(config, settings.market)
  with clock('stage 1'):
    experts = stages.train_experts(config, settings, run, dataset)
  with clock('calibration'):
    calibration = stages.calibrate(config, run, dataset, experts.extractor(config))
  with clock('stage 2'):
    policies = alignment.align(config, settings, run, dataset, experts, calibration)
  with clock('evaluation'):
    results = evaluation.evaluate(config, run, dataset, truth, experts, calibration, policies)
  reporting.report(config, run, dataset, experts, policies, results, clock.seconds)
  reporting.print_main_tables(results)
  print(f'The whole report: {run / "report.html"}\nJobs for a candidate that no run has seen, at '
        f'any tau up to {policies.policy.knots[-1]:.2f}:\n'
        f'  python -m experiments.recommend --run {run.folder} --tau {policies.taus[-1]:.2f} '
        '--candidate experiments/examples/builder.json')


if __name__ == '__main__':
  setup.run_main(main, 'configs/quickstart.py', 'runs/quickstart')
