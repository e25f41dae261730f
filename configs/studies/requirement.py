"""What a requirement may bind: the policy's expectation or the five best, as believed or as
held-out applicants make it, and what a policy of expected surplus is worth.

  python -m experiments.study --study=configs/studies/requirement.py --seeds=5 --data_seeds=3

Experts, and scores, are those of one run of each seed, whatever the policy.
"""

from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  top, estimated = {'policy.top_k': 5}, {'policy.eligibility': 'estimated'}
  raw = {'experts.calibration': 'none'}
  return Study('Is a requirement true, and of what people see?', {
      'base': Variant('τ binds the expectation of the believed eligibility', {}),
      'estimated': Variant('the same, as held-out applicants make it', estimated),
      'top': Variant('τ binds the mean of the five best', top),
      'top-estimated': Variant('the same, as held-out applicants make it', top | estimated),
      'surplus': Variant('ranks by expected surplus',
                         {'policy.objective': 'expected_surplus'}),
      'uncalibrated': Variant('p_qual = sigmoid(s_qual)', raw),
      'uncalibrated-estimated': Variant('the same, as held-out applicants make it',
                                         raw | estimated),
  })
