"""How many lists a pretrained backbone needs: the paper's 68 + 68 of 1 + 49, and more.

  python -m experiments.study --config=configs/smollm2_paper.py \\
      --study=configs/studies/smollm2.py --config.tokenizer.phrases=1000 --seeds=5

One list in a step, as published, in the first two; a hundred times as many go eight in a step.
"""

from jobrec_jax.pipeline.study import Study, Variant


def lists(count: int, at_once: int = 1, qualification: int | None = None) -> dict[str, int]:
  """The changes for so many preference lists, then as many of each perspective.

  Args:
    count: lists of each stage.
    at_once: preference lists in a step.
    qualification: qualification lists in a step, where they are fewer.
  """
  steps = count // at_once
  warmup = max(10, steps // 20)
  return {'warm_up.steps': steps, 'cooperative.steps': steps, 'warm_up.warmup': warmup,
          'cooperative.warmup': warmup, 'warm_up.batch': at_once, 'cooperative.batch': at_once,
          'cooperative.qualification_batch': qualification or at_once}


def get_study() -> Study:
  return Study('How many lists does a pretrained backbone need?', {
      'paper': Variant('68 lists, then 68 of each perspective, as published', lists(68)),
      'ten-times': Variant('680 lists, then 680 of each', lists(680)),
      'hundred-times': Variant('6,800 lists, then 6,800 with 1,700 of qualification',
                               lists(6800, 8, 2))})
