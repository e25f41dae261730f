"""Repairs of a data set: what the audit finds and rows can mend."""

import dataclasses
import hashlib

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, pair_code
from jobrec_jax.schema.schema import PERSPECTIVES


def id_hash(seed: int, *ids: str) -> int:
  """A number in [0, 2^64) that follows from the seed and the ids alone."""
  digest = hashlib.blake2b('\0'.join((str(seed), *ids)).encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'little')


def deal_shared_negatives(dataset: Dataset, seed: int = 0) -> Dataset:
  """Leaves each negative that several splits hold in one of them, chosen by a hash of the pair.

  Where all splits hold the same negatives, "was it a train negative?" ranks every positive first.

  Args:
    dataset: any data set.
    seed: of the choice.

  Returns:
    The data set with such labels unobserved in every other split, without the rows that are left
    with no label, and with a note on each perspective. Row order and all else stay.
  """
  log, notes = dataset.interactions, []
  labels = {p: getattr(log, p).copy() for p in PERSPECTIVES}
  lost = np.zeros(len(log), bool)
  for perspective, label in labels.items():
    rows = np.flatnonzero(label == 0)
    pairs, pair = np.unique(pair_code(log.candidate[rows], log.job[rows]), return_inverse=True)
    held = np.zeros((len(pairs), len(SPLITS)), bool)
    held[pair, log.split[rows]] = True
    holders = held.sum(1)
    home = np.zeros(len(pairs), int)
    for i in np.flatnonzero(holders > 1):
      ids = dataset.candidates[pairs[i] >> 32].id, dataset.jobs[pairs[i] & 0xFFFFFFFF].id
      home[i] = np.flatnonzero(held[i])[id_hash(seed, *ids) % int(holders[i])]
    drop = rows[(holders[pair] > 1) & (log.split[rows] != home[pair])]
    label[drop], lost[drop] = UNOBSERVED, True
    kept = np.bincount(home[holders > 1], minlength=len(SPLITS))
    where = ', '.join(f'{split} {n}' for split, n in zip(SPLITS, kept) if n)
    notes.append(f'{perspective}: {kept.sum()} negatives that several splits held were dealt to '
                 f'one each ({where or "none"}); {len(drop)} labels dropped')
  bare = lost & np.all([label == UNOBSERVED for label in labels.values()], axis=0)
  return dataclasses.replace(dataset, notes=(*dataset.notes, *notes),
                             interactions=dataclasses.replace(log, **labels).where(~bare))
