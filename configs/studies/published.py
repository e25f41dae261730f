"""What choices of the published method cost or gain, one at a time.

  python -m experiments.study --study=configs/studies/published.py --workdir=runs/published
"""

from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  return Study('What do the published choices cost or gain?', {
      'base': Variant('the quickstart as it is'),
      'softmax-weights': Variant('task weights through a softmax',
                                 {'experts.task_weights': 'softmax'}),
      'no-calibration': Variant('raw logits of qualification', {'experts.calibration': 'none'}),
      'applied-jobs': Variant('InfoNCE of the applied job', {'policy.objective': 'info_nce'}),
      'lambda-alone': Variant('a learned lambda keeps the requirement, not the exact dual',
                              {'policy.start': 'preference'})})
