"""Stage 2: one policy for every requirement, beside separate heads and the exact dual.

  python -m experiments.align_policy --config=configs/base.py --workdir=runs/mine
  ... --config.sweep.seeds='(0,1,2)' --config.sweep.learning_rates='(1e-3,5e-3)'
  ... --config.sweep.rules='((.3,0.,0.,0.),(.3,.5,0.,.5))'

frontier.md, frontier.json and figures/frontier.png hold what came out.
"""

from ml_collections import ConfigDict

from experiments import alignment, evaluation, frontier, reporting, setup, stages
from jobrec_jax.scoring.policy import policy_inputs


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  run = setup.Run(workdir)
  calibration = stages.load_calibration(run)
  run.start(config, 'align_policy')
  setup.use_compilation_cache()
  clock = reporting.Clock()
  with clock('data'):
    dataset, truth = setup.load_data(config, settings.market)
  with clock('experts'):
    experts = stages.load_experts(config, settings, run, dataset)
  with clock('stage 2'):
    policies = alignment.align(config, settings, run, dataset, experts, calibration)
  with clock('frontier'):
    held_out = evaluation.frozen_lists(config, run, dataset, truth)[
        evaluation.HELD_OUT, 'preference']
    features = experts.extractor(config)(held_out.candidate, held_out.job, 'held-out features')
    print(frontier.report(config, settings, run, policies, {
        evaluation.STAGE_2: policies.inputs,
        evaluation.HELD_OUT: policy_inputs(features, held_out, calibration)}))
  print(f'The policy is trained. Next: python -m experiments.evaluate --workdir={workdir}')


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
