"""Pairs for review: noisy labels, the pairs among them that are most doubtful, and who judges."""

from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import UNOBSERVED, Dataset, Truth, pair_code
from jobrec_jax.pipeline.perspectives import why_absent
from jobrec_jax.pipeline.settings import RefineSettings
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.refine.doubt import assign, budget_size, most_doubtful, pair_features, suspect
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_arrays, read_json, save_arrays, write_json

CHOSEN, RANDOM = 'chosen', 'random'


class Labels(NamedTuple):
  """What the machine says of pairs; `truth` [N] bool and `open` [N] (its probability) if known."""

  candidate: np.ndarray
  job: np.ndarray
  machine: np.ndarray
  truth: np.ndarray | None = None
  open: np.ndarray | None = None


class Choice(NamedTuple):
  """Pairs for review in the order in which they are shown: rows of `Labels`, and who judges."""

  rows: np.ndarray
  posterior: np.ndarray
  dealt: np.ndarray


class Selected(NamedTuple):
  """One perspective's labels, and of them the pairs for review.

  Attributes:
    labels: all of them.
    flip: the estimated share of flipped ones.
    choices: the most doubtful pairs as 'chosen', and as many drawn at random as 'random'.
  """

  labels: Labels
  flip: float
  choices: dict[str, Choice]


def machine_labels(rules: RefineSettings, seed: int, dataset: Dataset,
                   truth: Truth | None) -> dict[str, Labels]:
  """The labels to refine, by perspective.

  With a truth: its outcomes at uniform pairs, censored by nothing, flipped at a known rate. Without
  one: the observed labels; of a pair that several splits hold, the first.
  """
  labels = {}
  for name in rules.perspectives:
    if truth is None:
      if why := why_absent(dataset, name):
        raise ValueError(f'refine.perspectives must have labels to refine, got {name!r}: {why}')
      log = dataset.interactions
      log = log.where(getattr(log, name) != UNOBSERVED)
      _, first = np.unique(pair_code(log.candidate, log.job), return_index=True)
      log = log.where(np.sort(first))
      labels[name] = Labels(log.candidate, log.job, getattr(log, name) == 1)
      continue
    rng = streams.rng(seed, f'refine, labels, {name}')
    outcome, probability = {'preference': (truth.wants, truth.preference),
                            'qualification': (truth.eligible, truth.qualification)}[name]
    drawn = rng.choice(outcome.size, min(rules.pairs, outcome.size), replace=False)
    candidate, job = np.divmod(np.sort(drawn), len(dataset.jobs))
    true = outcome[candidate, job]
    flipped = rng.random(len(true)) < rules.flip
    labels[name] = Labels(candidate, job, true ^ flipped, true,
                          probability[candidate, job].astype(np.float64))
  return labels


def choose(rules: RefineSettings, seed: int, dataset: Dataset, name: str,
           labels: Labels) -> Selected:
  """Finds the doubtful pairs of a perspective.

  Raises:
    ValueError: there are too few labels of a kind.
  """
  try:
    found = suspect(pair_features(dataset, labels.candidate, labels.job), labels.machine,
                    streams.seed32(seed, f'refine, folds, {name}'))
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error
  rng = streams.rng(seed, f'refine, choice, {name}')
  total = len(labels.machine)
  count = budget_size(total, rules.budget)
  choices = {}
  for kind, rows in ((CHOSEN, most_doubtful(found.wrong, count)),
                     (RANDOM, rng.choice(total, count, replace=False))):
    rows = rng.permutation(rows)  # the place in the review says nothing of the doubt
    dealt = assign(count, len(rules.names), rules.verdicts, rng)
    choices[kind] = Choice(rows, found.posterior[rows], dealt)
  return Selected(labels, float(found.flip), choices)


def make_selection(bench: Bench) -> None:
  """Draws or takes the labels, and chooses among them."""
  rules, seed = bench.settings['refine'], bench.settings['seed']
  dataset, truth = bench.inputs['data']
  flips = {}
  for name, labels in machine_labels(rules, seed, dataset, truth).items():
    found = choose(rules, seed, dataset, name, labels)
    flips[name] = found.flip
    arrays = {k: v for k, v in labels._asdict().items() if v is not None}
    arrays |= {f'{kind}|{k}': v for kind, c in found.choices.items()
               for k, v in c._asdict().items()}
    save_arrays(bench.folder / f'{name}.npz', arrays)
  write_json(bench.folder / 'flips.json', flips)


def read_selection(bench: Bench) -> dict[str, Selected]:
  """The selection of each perspective."""
  found = {}
  for name, flip in read_json(bench.folder / 'flips.json').items():
    arrays = load_arrays(bench.folder / f'{name}.npz')
    choices = {kind: Choice(*(arrays[f'{kind}|{k}'] for k in Choice._fields))
               for kind in (CHOSEN, RANDOM)}
    labels = Labels(**{k: arrays[k] for k in Labels._fields if k in arrays})
    found[name] = Selected(labels, flip, choices)
  return found
