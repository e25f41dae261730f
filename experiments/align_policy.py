"""Stage 2: a policy head for each requirement, on the frozen experts of train_experts.

  python -m experiments.align_policy --config=configs/base.py --workdir=runs/mine
"""

from ml_collections import ConfigDict

from experiments import alignment, reporting, setup, stages


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  run = setup.Run(workdir)
  calibration = stages.load_calibration(run)
  run.start(config, 'align_policy')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, _ = setup.load_data(config, settings.market)
  with clock('experts'):
    experts = stages.load_experts(config, settings, run, dataset)
  with clock('stage 2'):
    alignment.align(config, settings, run, dataset, experts, calibration)
  print(f'The policies are trained. Next: python -m experiments.evaluate --workdir={workdir}')


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
