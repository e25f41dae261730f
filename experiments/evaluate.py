"""Evaluates what train_experts and align_policy left in a run folder, and writes the report.

  python -m experiments.evaluate --config=configs/base.py --workdir=runs/mine
"""

from ml_collections import ConfigDict

from experiments import alignment, evaluation, reporting, setup, stages


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  run = setup.Run(workdir)
  calibration = stages.load_calibration(run)
  run.read_json('policy.json', 'experiments.align_policy')
  run.start(config, 'evaluate')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, truth = setup.load_data(config, settings.market)
  with clock('experts'):
    experts = stages.load_experts(config, settings, run, dataset)
  with clock('policies'):
    policies = alignment.align(config, settings, run, dataset, experts, calibration)
  with clock('evaluation'):
    results = evaluation.evaluate(config, run, dataset, truth, experts, calibration, policies)
  reporting.report(config, run, dataset, experts, policies, results, clock.seconds)
  reporting.print_main_tables(results)
  print(f'The whole report: {run / "report.html"}')


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
