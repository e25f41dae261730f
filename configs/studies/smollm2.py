"""How many lists a pretrained backbone needs: the paper's 68 + 68 of 1 + 49, and more.

  python -m experiments.study --config=configs/smollm2_paper.py \\
      --study=configs/studies/smollm2.py --seeds=3 --workdir=runs/smollm2-lists

One list in a step throughout, so that the number of lists is all that differs.
"""

from jobrec_jax.pipeline.study import Study, Variant


def lists(count: int) -> dict[str, int]:
  """The changes for so many preference lists, then as many of each perspective."""
  warmup = max(10, count // 20)
  return {'warm_up.steps': count, 'cooperative.steps': count,
          'warm_up.warmup': warmup, 'cooperative.warmup': warmup}


def get_study() -> Study:
  return Study('How many lists does a pretrained backbone need?', {
      'paper': Variant('68 lists, then 68 of each perspective, as published'),
      'three-times': Variant('204 lists, then 204 of each', lists(204)),
      'ten-times': Variant('680 lists, then 680 of each', lists(680))})
