"""Which perspectives the labels of a log teach, and why one is left out.

The log of the data stage alone decides it: no setting does, and no key of a stage holds it.
"""

import numpy as np

from jobrec_jax.data.dataset import SPLITS, Dataset, Interactions
from jobrec_jax.data.lists import CENTRES
from jobrec_jax.schema.schema import PERSPECTIVES

# What a perspective is learnt from: what it is called, and the label.
NEEDED = {'preference': (('applications', 1),),
          'qualification': (('accepted applicants', 1), ('rejected applicants', 0))}


def perspectives(dataset: Dataset) -> tuple[str, ...]:
  """Those whose expert is trained, in the order of `PERSPECTIVES`.

  Preference needs applications: where nothing was shown and not applied to, other jobs are drawn.
  Qualification needs accepted and rejected applicants, for nobody else is one or the other. A log
  that has these in other splits than train is not divided well, which `data.check_sizes` refuses.
  """
  return tuple(p for p in PERSPECTIVES if not lacks(dataset.interactions, p))


def lacks(log: Interactions, perspective: str) -> list[str]:
  """What of a perspective's labels no row has, in words."""
  labels = getattr(log, perspective)
  return [what for what, label in NEEDED[perspective] if not (labels == label).any()]


def why_absent(dataset: Dataset, perspective: str) -> str:
  """A clause on an expert that is not trained; '' where it is."""
  missing = lacks(dataset.interactions, perspective)
  return f'the log holds no {" and no ".join(missing)} in any split' if missing else ''


def split_sizes(dataset: Dataset) -> str:
  """How many pairs each split has, in words."""
  split = dataset.interactions.split
  return ', '.join(f'{int((split == i).sum()):,} in {name}' for i, name in enumerate(SPLITS))


def check_both(dataset: Dataset, what: str) -> None:
  """Raises ValueError: labels of one perspective are missing, so that there is no policy."""
  for perspective in PERSPECTIVES:
    if why := why_absent(dataset, perspective):
      raise ValueError(f'{what} must have a policy, which stands on both experts, got none: {why}, '
                       f'so that no {perspective} expert is trained')


def has_contrast(log: Interactions, perspective: str, centre: str = '') -> bool:
  """Whether one 'candidate' or 'job' at least has both a positive and a negative label.

  Without `centre` the one whose lists rank the perspective first.
  """
  label = getattr(log, perspective)
  key = getattr(log, centre or CENTRES[perspective])
  return bool(np.intersect1d(key[label == 1], key[label == 0]).size)
