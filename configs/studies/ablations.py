"""What each part of the method is worth: one change at a time, on the quickstart's market.

  python -m experiments.study --study=configs/studies/ablations.py --workdir=runs/ablations
"""

from jobrec_jax.pipeline.study import Study, Variant

LAYERS = {'eligibility': 'level and field of study', 'competence': 'skills and projects',
          'logistics': 'hours and terms', 'interest': 'industry', 'narrative': 'free text'}


def get_study() -> Study:
  return Study('What is each part of the method worth?', {
      'base': Variant('the quickstart as it is'),
      **text(), **model(), **training(), **policy()})


def text() -> dict[str, Variant]:
  """What the experts read."""
  left_out = {f'without-{layer}': Variant(f'the layer {layer} is left out: {what}',
                                          {'tokenizer.without_layers': (layer,)})
              for layer, what in LAYERS.items()}
  return {
      'raw': Variant('attributes as a flat list, without the schema and its verdicts',
                     {'tokenizer.layout': 'raw'}),
      **left_out,
      'symbols': Variant('verdicts as a symbol each', {'tokenizer.verdicts': 'symbols'}),
      'vectors': Variant('verdicts as learned vectors', {'tokenizer.verdicts': 'vectors'}),
      'no-components': Variant('no components of words as numbers',
                               {'tokenizer.components': 0}),
      'words-alone': Variant('verdicts and margins in words, not as numbers',
                             {'tokenizer.numbers': False}),
      'numbers-alone': Variant('verdicts and margins as numbers, not in words',
                               {'tokenizer.verdicts': 'none'})}


def model() -> dict[str, Variant]:
  """How they read it."""
  return {
      'last-token': Variant('both experts read one state (published)',
                            {'model.readout': 'last_token'}),
      'adapters-apart': Variant('adapters of its own for each expert', {'lora.per_expert': True}),
      'factored': Variant('candidate and job are read alone', {'model.attention': 'factored'})}


def training() -> dict[str, Variant]:
  """How they learn."""
  return {
      'no-censoring': Variant('applicants count alike', {'experts.censoring': 'none'}),
      'applications': Variant('preference as applications show it, doubt left in',
                              {'experts.self_censoring': 'none'}),
      'own-axis': Variant('preference in lists of a candidate alone, qualification of a job',
                          {'lists.across': 0.0}),
      'no-warm-up': Variant('no stage 1A, and so no propensities; compare with no-censoring',
                            {'warm_up.steps': 0, 'experts.censoring': 'none'}),
      'softmax-weights': Variant('task weights through a softmax (published)',
                                 {'experts.task_weights': 'softmax'}),
      'fixed-weights': Variant('task weights fixed at a half', {'experts.task_weights': 'fixed'}),
      'beta-0.3': Variant('less cross-entropy beside the contrast', {'experts.beta': 0.3}),
      'negatives-3': Variant('3 jobs not applied to in a list, for 7',
                             {'lists.preference_negatives': 3}),
      'uniform-negatives': Variant('negatives drawn from all jobs',
                                   {'lists.preference_policy': 'uniform'}),
      'rejected-3': Variant('3 rejected applicants in a list, for 7',
                            {'lists.qualification_negatives': 3})}


def policy() -> dict[str, Variant]:
  """How the policy is aligned."""
  return {
      'no-calibration': Variant('raw logits of qualification (published)',
                                {'experts.calibration': 'none'}),
      'equality': Variant('C equal to the requirement (published)',
                          {'policy.constraint': 'equality'}),
      'pid': Variant('the multiplier by PID, for plain ascent; compare with lambda-alone',
                     {'policy.start': 'preference', 'policy.dual_kp': 0.5, 'policy.dual_kd': 0.1,
                      'policy.dual_nu': 0.5}),
      'applied-jobs': Variant('InfoNCE of the applied job (published), for the expected score',
                              {'policy.objective': 'info_nce'}),
      'lambda-alone': Variant('a learned lambda keeps the requirement (published), not the exact '
                              'dual', {'policy.start': 'preference'}),
      'head-off': Variant('lambda is 0: preference alone',
                          {'policy.start': 'preference', 'policy.head': 'off'}),
      'head-scalar': Variant('one lambda for each requirement; compare with lambda-alone',
                             {'policy.start': 'preference', 'policy.head': 'scalar'}),
      'head-separate': Variant('a head of its own for each requirement; compare with lambda-alone',
                               {'policy.start': 'preference', 'policy.head': 'separate'}),
      'temperature-0.5': Variant('a sharper softmax of the policy', {'policy.temperature': 0.5}),
      'temperature-2': Variant('a flatter softmax of the policy', {'policy.temperature': 2.0})}
