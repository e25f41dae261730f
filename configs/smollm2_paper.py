"""SmolLM2-135M on the paper's sizes of lists, 1 + 49, for one accelerator.

  make smollm2
  python -m experiments.quickstart --config=configs/smollm2_paper.py --workdir=runs/paper
  python -m experiments.study --config=configs/smollm2_paper.py \\
      --study=configs/studies/smollm2.py --seeds=3

68 preference lists, then 68 of each perspective, one in a step, as published. Ten times as many:
`--config.warm_up.steps=680 --config.cooperative.steps=680`; the study has that and what lies
between. The market is so large that every candidate has 49 jobs that were shown and not applied to,
and a job 46 rejected applicants on average. Attention is exact and texts are read as the
backbone's own tokens: on an accelerator that is no matter of hours, as it is on CPUs, for which
`--config.backbone.dtype=float32 --config.model.dtype=float32` is faster.
"""

from configs import smollm2


def get_config():
  c = smollm2.get_config()
  with c.unlocked():
    c.backbone.dtype = c.model.dtype = 'bfloat16'
    c.market.texts = 'sentences'
    c.market.candidates, c.market.jobs, c.market.exposure = 1200, 160, 0.9
    c.tokenizer.phrases = c.tokenizer.candidate = c.tokenizer.job = c.tokenizer.alignment = 0
    c.model.attention = 'exact'
    c.lists.preference_negatives = c.lists.qualification_negatives = 49
    c.features.list_length, c.features.batch = 20, 16
    c.features.states = ''  # exact attention reads no block alone
    c.evaluate.candidates = 80  # of 300: 12,800 pairs
  return c
