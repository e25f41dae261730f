"""Whether training betters the experts' linear start where a log has many candidates.

  python -m experiments.study --study=configs/studies/candidates_trained.py --seeds=5

As many steps for each candidate as the quickstart has for its 600. Best on an accelerator.
"""

from configs.studies.funnel import STILL
from jobrec_jax.pipeline.study import Study, Variant

USUAL = 600  # candidates, for the steps of stages 1A and 1B by default
STEPS = {'warm_up': 120, 'cooperative': 180}


def longer(count: int) -> dict[str, int]:
  return {f'{stage}.steps': steps * count // USUAL for stage, steps in STEPS.items()}


def get_study() -> Study:
  variants = {}
  for count in (2400, 4800):
    market = {'market.candidates': count, 'evaluate.candidates': 120, 'evaluate.rivals': ()}
    variants |= {
        f'{count}': Variant(f'{count} candidates, experts as they start', market | STILL),
        f'{count}-trained': Variant(f'{count // USUAL} times the steps', market | longer(count))}
  return Study('Does training better the start where there are many candidates?', variants)
