"""Lists of a positive and sampled negatives, for catalogues where ranking all costs too much."""

from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import Truth
from jobrec_jax.data.lists import RankingLists


class Grid(NamedTuple):
  """Every pair of some candidates and some jobs.

  Attributes:
    candidates, jobs: the entities of its rows [U] and columns [J].
    truth: [U, J] of its pairs.
    taken: [U, J] bool, pairs that no list may hold; None for none.
  """

  candidates: np.ndarray
  jobs: np.ndarray
  truth: Truth
  taken: np.ndarray | None = None


def sampled_lists(grid: Grid, perspective: str, length: int, seed: int) -> RankingLists:
  """One positive and up to length - 1 negatives for each candidate (or job), in a random order.

  Relevance is the latent outcome. For catalogues where ranking everything costs too much: drawn
  once, stored, and given to every system alike.

  Args:
    grid: the pairs there are.
    perspective: 'preference' (candidate-centred) or 'qualification' (job-centred).
    length: of a list; shorter ones are masked.
    seed: of the draw.

  Raises:
    ValueError: no list has both a positive and a negative.
  """
  rng = np.random.default_rng(seed)
  outcome = grid.truth.wants if perspective == 'preference' else grid.truth.eligible
  free = np.ones(outcome.shape, bool) if grid.taken is None else ~grid.taken
  if perspective == 'qualification':
    outcome, free = outcome.T, free.T
  centres, items = (grid.candidates, grid.jobs)[::1 if perspective == 'preference' else -1]
  rows = []
  for k in range(len(centres)):
    positive, negative = (np.flatnonzero(free[k] & (outcome[k] == x)) for x in (True, False))
    if len(positive) and len(negative):
      chosen = np.append(rng.permutation(negative)[:length - 1], rng.choice(positive))
      rows.append((k, rng.permutation(chosen)))
  if not rows:
    raise ValueError(f'no {perspective} list has both a positive and a negative')
  width = max(len(chosen) for _, chosen in rows)
  mask = np.arange(width) < np.array([len(chosen) for _, chosen in rows])[:, None]
  at = np.stack([np.resize(chosen, width) for _, chosen in rows])
  k = np.array([k for k, _ in rows])[:, None]
  pair = np.broadcast_to(centres[k], at.shape).astype(np.int32), items[at].astype(np.int32)
  return RankingLists(perspective, *pair[::1 if perspective == 'preference' else -1],
                      outcome[k, at] & mask, mask)
