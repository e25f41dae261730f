"""The audit: overlap between splits and leak canaries, run on every data set before training.

A canary is a scorer that knows nothing about candidates and jobs. Where it ranks positives better
than chance, the lists give their answers away, and every figure measured on them is suspect.
"""

from collections.abc import Callable, Iterable
import dataclasses
import hashlib
import itertools
from typing import Literal

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.schema.schema import PERSPECTIVES

LEVEL = 0.001
_TILTS = np.geomspace(1e-3, 1e3, 200)  # where the Chernoff bound is minimised; any t > 0 is valid


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing the audit measured.

  Attributes:
    name: 'check/perspective/split', e.g. 'shared_negatives/preference/train-test'.
    severity: 'error' where the data must not be used unless the fault is named as known.
    value: what was measured: a count, a share, or a canary's MRR.
    chance: a canary's expected MRR under random order; None otherwise.
    p_value: an upper bound on the probability of such an MRR by chance; None otherwise.
    text: the finding in words.
  """

  name: str
  severity: Literal['error', 'info']
  value: float
  text: str
  chance: float | None = None
  p_value: float | None = None


@dataclasses.dataclass(frozen=True)
class AuditReport:
  """All findings of an audit."""

  findings: tuple[Finding, ...]

  @property
  def rows(self) -> list[dict]:
    return [dataclasses.asdict(f) for f in self.findings]

  def failed(self, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the errors that `known` does not name, in full or by leading parts of the name."""
    known = tuple(known)
    return tuple(f.name for f in self.findings if f.severity == 'error'
                 and not any(f.name == k or f.name.startswith(f'{k}/') for k in known))

  def table(self) -> str:
    width = max((len(f.name) for f in self.findings), default=0)
    return '\n'.join(f'{f.severity:5}  {f.name:{width}}  {f.text}' for f in self.findings)


def first_positive_rank(n: int, m: int) -> np.ndarray:
  """P(the best of m positives among n stands at rank r) under a uniformly random order.

  P(r) = C(n - r, m - 1) / C(n, m), by the recurrence P(r + 1) = P(r) (n - m - r + 1) / (n - r).

  Args:
    n: length of the list.
    m: positives in it, 1 <= m <= n.

  Returns:
    [n - m + 1] float64, for r = 1, 2, ...
  """
  r = np.arange(1, n - m + 1)
  return np.cumprod(np.concatenate([[m / n], (n - m - r + 1) / (n - r)]))


def list_reciprocal_ranks(lists: np.ndarray, relevant: np.ndarray,
                          scores: np.ndarray) -> np.ndarray:
  """Expected reciprocal rank of each list's first positive, over random tie-breaking.

  With g items above the best positive's score and e items at it, of which p are positive, this is
  sum_r P(r; e, p) / (g + r), P as in `first_positive_rank`.

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
  counts = np.stack([np.bincount(lists[rows], minlength=n)
                     for rows in (scores > best[lists], level, level & relevant)], axis=1)
  kinds, inverse = np.unique(counts, axis=0, return_inverse=True)
  values = []
  for above, tied, hits in kinds:
    p = first_positive_rank(tied, hits)
    values.append(p @ (1 / (above + np.arange(1, len(p) + 1))))
  return np.asarray(values)[inverse.ravel()]


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
  return mean / total, lambda mrr: float(np.exp(min(0.0, (log_mgf - _TILTS * total * mrr).min())))


def _pairs(log: Interactions) -> np.ndarray:
  return log.candidate.astype(np.int64) << 32 | log.job


def _shared(a: np.ndarray, b: np.ndarray) -> int:
  return len(np.intersect1d(a, b))


def _overlaps(log: Interactions, first: str, second: str) -> list[Finding]:
  """What two splits share. One pair labelled twice for a perspective is an error."""
  a, b = log.of(first), log.of(second)
  where = f'{first}-{second}'
  found = []
  for perspective in PERSPECTIVES:
    ya, yb = getattr(a, perspective), getattr(b, perspective)
    for check, what, of_a, of_b in (
        ('pair_overlap', 'pairs', ya != UNOBSERVED, yb != UNOBSERVED),
        ('shared_negatives', 'negatives', ya == 0, yb == 0)):
      n = _shared(_pairs(a)[of_a], _pairs(b)[of_b])
      found.append(Finding(f'{check}/{perspective}/{where}', 'error' if n else 'info', n,
                           f'{n} {what} in both'))
  for what, x, y in (('pair', _pairs(a), _pairs(b)), ('candidate', a.candidate, b.candidate),
                     ('job', a.job, b.job)):
    n = _shared(x, y)
    found.append(Finding(f'{what}_overlap/any/{where}', 'info', n, f'{n} {what}s in both'))
  return found


@dataclasses.dataclass(frozen=True)
class _Lists:
  """The labelled lists of a split that hold a positive and a negative. All arrays are [N]."""

  rows: Interactions
  lists: np.ndarray
  relevant: np.ndarray
  position: np.ndarray
  in_entity_order: bool

  @classmethod
  def of(cls, log: Interactions, perspective: str) -> '_Lists':
    log = log.where(getattr(log, perspective) != UNOBSERVED)
    sides = (log.candidate, log.job)
    centre, other = sides if perspective == 'preference' else sides[::-1]
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


def _canaries(part: _Lists, dataset: Dataset, train_negatives: np.ndarray | None,
              seed: int) -> dict[str, np.ndarray]:
  """Scores of each canary for each row of `part`."""
  rows = part.rows
  names = (f'{dataset.candidates[u].id}\0{dataset.jobs[j].id}'
           for u, j in zip(rows.candidate, rows.job))
  digests = b''.join(hashlib.blake2b(n.encode(), digest_size=8).digest() for n in names)
  scores = {'constant': np.zeros(len(rows)),
            'random': np.random.default_rng(seed).random(len(rows)),
            'id_hash': np.frombuffer(digests, '<u8').astype(float)}
  if not part.in_entity_order:
    scores |= {'first_in_list': -part.position.astype(float),
               'last_in_list': part.position.astype(float)}
  if train_negatives is not None:
    scores['train_negative_lookup'] = -np.isin(_pairs(rows), train_negatives).astype(float)
  return scores


def _canary_findings(dataset: Dataset, seed: int) -> list[Finding]:
  log, found, judged = dataset.interactions, [], []
  train = log.of('train')
  for perspective, split in itertools.product(PERSPECTIVES, SPLITS):
    part = _Lists.of(log.of(split), perspective)
    if not len(part.rows):
      continue
    where = f'{perspective}/{split}'
    sizes = np.bincount(part.lists)
    chance, tail = chance_mrr(sizes, np.bincount(part.lists[part.relevant]))
    if part.in_entity_order:
      found.append(Finding(f'position_in_list/{where}', 'info', len(sizes),
                           'not judged: every list stands in the order of the entities'))
    negatives = None if split == 'train' else _pairs(train)[getattr(train, perspective) == 0]
    for name, scores in _canaries(part, dataset, negatives, seed).items():
      mrr = float(list_reciprocal_ranks(part.lists, part.relevant, scores).mean())
      p = tail(mrr)
      judged.append(Finding(f'{name}/{where}', 'info', mrr,
                            f'MRR {mrr:.4f}, chance {chance:.4f}, {len(sizes)} lists, p <= {p:.2g}',
                            chance, p))
  return found + [dataclasses.replace(
      f, severity='error' if f.p_value < LEVEL / len(judged) else 'info') for f in judged]


def audit(dataset: Dataset, seed: int = 0) -> AuditReport:
  """Measures what splits share, label balance, and whether canaries beat chance.

  Lists are candidate-centred for preference and job-centred for qualification: the labelled rows of
  a split, where they hold a positive and a negative. Canaries: a constant, random numbers, a hash
  of both ids, first and last in the order of the rows, and "was it a train negative?", which ranks
  those last (not judged on train itself). A canary's MRR is an error where its one-sided p is below
  0.001 over the number of canaries judged (Bonferroni); see `chance_mrr`. Position is not judged
  where all lists stand in the order of the entities: it then repeats the entity's identity, shared
  by all lists, and measures popularity, which is no leak.

  Args:
    dataset: any data set.
    seed: of the random canary.

  Returns:
    The findings; candidate overlap, job overlap and label balance are never errors.
  """
  log = dataset.interactions
  present = [split for split in SPLITS if len(log.of(split))]
  found = [f for pair in itertools.combinations(present, 2) for f in _overlaps(log, *pair)]
  for perspective, split in itertools.product(PERSPECTIVES, present):
    label = getattr(log.of(split), perspective)
    label = label[label != UNOBSERVED]
    if len(label):
      found.append(Finding(f'label_balance/{perspective}/{split}', 'info', float(label.mean()),
                           f'{label.sum(dtype=int)} of {len(label)} labels are positive'))
  return AuditReport((*found, *_canary_findings(dataset, seed)))
