"""Reason first, or score first? Experts that read n tokens of a written reason before they judge.

  python -m experiments.study --study=configs/studies/reason_first.py --seeds=1 --data_seeds=5

All read words alone: where margins and components of words are numbers, too, validation keeps
hardly anything of what a small decoder adds to the linear start.
"""

from jobrec_jax.pipeline.study import Study, Variant

LENGTHS = 0, 16, 64  # n, of each perspective's reason
MARKET = {'market.candidates': 300, 'market.jobs': 50, 'tokenizer.numbers': False,
          'tokenizer.components': 0, 'evaluate.rivals': ('logistic regression with words',)}


def get_study() -> Study:
  return Study('Do experts judge better that reason first?', {
      f'chain-{n}': Variant(f'{n} tokens of a reason of each perspective before a judgement'
                            if n else 'a judgement first',
                            MARKET | ({'experts.chain': n} if n else {}))
      for n in LENGTHS})
