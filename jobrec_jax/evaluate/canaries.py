"""Leak canaries: scorers that know nothing about candidates and jobs, and the law of their luck.

Where a canary ranks positives better than chance, the lists give their answers away, and every
figure measured on them is suspect.
"""

from collections.abc import Callable
import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import (
    SPLITS,
    TEST_KINDS,
    UNOBSERVED,
    Dataset,
    Interactions,
    pair_code,
)
from jobrec_jax.evaluate.ranking import first_positive_rank, reciprocal_rank
from jobrec_jax.schema.schema import PERSPECTIVES, Entity
from jobrec_jax.schema.streams import finalise

LEVEL = 0.001  # probability that any canary of a clean data set is called a leak
CENTRES = {'preference': 'candidate', 'qualification': 'job'}  # whose lists they are
_TILTS = np.geomspace(1e-3, 1e3, 200)  # where the Chernoff bound is minimised; any t > 0 is valid


class Canary(NamedTuple):
  """What a canary reached on the lists of one perspective and place.

  Attributes:
    name: 'canary/perspective/place'.
    mrr: its mean reciprocal rank.
    chance: the expected MRR of a random order.
    p_value: an upper bound on the probability of such an MRR, or a greater one, by chance.
    lists: how many it was measured on.
    leaks: p_value < LEVEL / number of canaries judged (Bonferroni).
  """

  name: str
  mrr: float
  chance: float
  p_value: float
  lists: int
  leaks: bool


def list_reciprocal_ranks(lists: np.ndarray, relevant: np.ndarray,
                          scores: np.ndarray) -> np.ndarray:
  """Expected reciprocal rank of each list's first positive, over random tie-breaking.

  Args:
    lists: [N] int, the list of each row, 0 to L - 1; each list has a positive.
    relevant: [N] bool.
    scores: [N] finite, higher is better.

  Returns:
    [L] float64.
  """
  n = lists.max() + 1
  best = np.full(n, -np.inf)
  np.maximum.at(best, lists[relevant], scores[relevant])
  level = scores == best[lists]
  return reciprocal_rank(*(np.bincount(lists[rows], minlength=n)
                           for rows in (scores > best[lists], level, level & relevant)))


def chance_mrr(sizes: np.ndarray, positives: np.ndarray) -> tuple[float, Callable[[float], float]]:
  """The MRR of a random order over L independent lists, and the tail of its distribution.

  The tail is Chernoff's bound, P(sum_l X_l >= s) <= min_t exp(sum_l log E exp(t X_l) - t s), with
  the exact law of each reciprocal rank X_l. It holds for few lists and skewed laws, where a normal
  approximation calls luck a leak. A scorer with ties has E[X_l | tie groups] in place of X_l, whose
  moment generating function is no larger (Jensen), so it holds for ties too.

  Args:
    sizes, positives: [L] int, n and m of each list, 1 <= m <= n.

  Returns:
    The expected MRR, and a function from an observed MRR to the bound on P(MRR >= observed).
  """
  mean, log_mgf = 0.0, np.zeros_like(_TILTS)
  kinds, counts = np.unique(np.stack([sizes, positives], 1), axis=0, return_counts=True)
  for (n, m), count in zip(kinds, counts):
    p = first_positive_rank(n, m)
    reciprocal = 1 / np.arange(1, len(p) + 1)
    mean += count * (p @ reciprocal)
    log_mgf += count * (_TILTS + np.log(np.exp(_TILTS[:, None] * (reciprocal - 1)) @ p))
  total = len(sizes)

  def tail(mrr: float) -> float:
    bound = np.exp(min(0.0, (log_mgf - _TILTS * total * mrr).min()))
    return max(float(bound), np.finfo(float).tiny)  # it may underflow, but nothing is impossible
  return mean / total, tail


def labelled(log: Interactions) -> dict[tuple[str, str], Interactions]:
  """The labelled rows of each perspective and place, without empty ones.

  Places are the splits, and where a perspective's test rows are of several kinds, also 'test.warm',
  'test.cold_candidates' and so on.
  """
  parts = {split: log.of(split) for split in SPLITS}
  parts |= {f'test.{kind}': log.of(kind) for kind in TEST_KINDS}
  found = {}
  for perspective in PERSPECTIVES:
    rows = {place: part.where(getattr(part, perspective) != UNOBSERVED)
            for place, part in parts.items()}
    whole = len(rows['test'])
    found |= {(perspective, place): part for place, part in rows.items()
              if len(part) and not (place.startswith('test.') and len(part) == whole)}
  return found


@dataclasses.dataclass(frozen=True)
class _Lists:
  """The lists among labelled rows that hold a positive and a negative. All arrays are [N]."""

  rows: Interactions
  lists: np.ndarray
  relevant: np.ndarray
  position: np.ndarray
  in_entity_order: bool

  @classmethod
  def of(cls, log: Interactions, perspective: str) -> '_Lists':
    centre = getattr(log, CENTRES[perspective])
    other = log.job if centre is log.candidate else log.candidate
    label = getattr(log, perspective).astype(bool)
    n = centre.max(initial=-1) + 1
    positives, sizes = np.bincount(centre[label], minlength=n), np.bincount(centre, minlength=n)
    keep = ((positives > 0) & (positives < sizes))[centre]
    lists, sizes = np.unique(centre[keep], return_inverse=True, return_counts=True)[1:]
    order = np.argsort(lists, kind='stable')
    position = np.empty_like(order)
    position[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    steps = np.diff(other[keep][order].astype(np.int64))[np.diff(lists[order]) == 0]
    return cls(log.where(keep), lists, label[keep], position,
               bool((steps > 0).all() or (steps < 0).all()))


def _hashes(entities: tuple[Entity, ...]) -> np.ndarray:
  """A hash of each entity's id, [entities] uint64."""
  digests = (hashlib.blake2b(e.id.encode(), digest_size=8).digest() for e in entities)
  return np.frombuffer(b''.join(digests), '<u8')


def id_hash_scores(dataset: Dataset, rows: Interactions) -> np.ndarray:
  """A number for each pair that depends on the two ids alone, [N] float64."""
  users, items = _hashes(dataset.candidates), _hashes(dataset.jobs)
  return finalise(finalise(users[rows.candidate]) ^ items[rows.job]).astype(float)


def judge_canaries(dataset: Dataset, seed: int) -> tuple[list[Canary], dict[str, int]]:
  """The MRR of each canary on each split and kind of test rows, against chance.

  Lists are candidate-centred for preference and job-centred for qualification: the `labelled` rows
  of a place, where they hold a positive and a negative. Canaries: a constant, random numbers, a
  hash of both ids, first and last in the order of the rows, and "was it a train negative?", which
  ranks those last (not judged on train itself).

  Position is not judged where all lists stand in the order of the entities: it then repeats the
  entity's identity, shared by all lists, and measures popularity, which is no leak.

  Args:
    dataset: any data set.
    seed: of the random canary.

  Returns:
    The canaries judged, and the number of lists of each 'perspective/place' without position.
  """
  judged, unplaced = [], {}
  train = dataset.interactions.of('train')
  for (perspective, place), log in labelled(dataset.interactions).items():
    part = _Lists.of(log, perspective)
    if not len(part.rows):
      continue
    where, rows = f'{perspective}/{place}', part.rows
    sizes = np.bincount(part.lists)
    scores = {'constant': np.zeros(len(rows)),
              'random': np.random.default_rng((seed, *where.encode())).random(len(rows)),
              'id_hash': id_hash_scores(dataset, rows)}
    if part.in_entity_order:
      unplaced[where] = len(sizes)
    else:
      scores |= {'first_in_list': -part.position.astype(float),
                 'last_in_list': part.position.astype(float)}
    if place != 'train':
      negatives = pair_code(train.candidate, train.job)[getattr(train, perspective) == 0]
      scores['train_negative_lookup'] = -np.isin(
          pair_code(rows.candidate, rows.job), negatives).astype(float)
    chance, tail = chance_mrr(sizes, np.bincount(part.lists[part.relevant]))
    for name, values in scores.items():
      mrr = float(list_reciprocal_ranks(part.lists, part.relevant, values).mean())
      judged.append(Canary(f'{name}/{where}', mrr, chance, tail(mrr), len(sizes), False))
  return [c._replace(leaks=c.p_value < LEVEL / len(judged)) for c in judged], unplaced
