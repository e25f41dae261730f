"""Stages 1A and 1B, and the calibration of the qualification expert.

  python -m experiments.train_experts --config=configs/base.py --workdir=runs/mine
"""

from ml_collections import ConfigDict

from experiments import reporting, setup, stages


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  run = setup.Run(workdir)
  run.start(config, 'train_experts')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, _ = setup.load_data(config, settings.market)
  with clock('stage 1'):
    experts = stages.train_experts(config, settings, run, dataset)
  with clock('calibration'):
    stages.calibrate(config, run, dataset, experts.extractor(config))
  print(f'The experts are trained. Next: python -m experiments.align_policy --workdir={workdir}')


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
