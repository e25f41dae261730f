"""Refines noisy labels: doubtful pairs are chosen, experts judge them, their verdicts aggregated.

  python -m experiments.refine --config=configs/base.py --workdir=runs/refine
  python -m experiments.refine --config=configs/base.py --workdir=runs/refine-by-people \\
      --config.refine.reviewers=people --config.refine.budget=0.002

With people, the first call writes a page and a sheet for each of them; every later one reads what
lies in the run folder's verdicts/ and aggregates that.
"""

from collections.abc import Iterable
import csv
import dataclasses
import hashlib
import io
import json
import math
from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from experiments import setup
from experiments.setup import section
from jobrec_jax.data.dataset import UNOBSERVED, Dataset, Truth
from jobrec_jax.data.files.paper_csv import LABEL_COLUMNS
from jobrec_jax.refine.aggregation import NONE, cohen_kappas, fleiss_kappa
from jobrec_jax.refine.doubt import (
  Refined,
  assign,
  budget_size,
  most_doubtful,
  pair_features,
  posterior_of,
  refine,
  simulate_verdicts,
  suspect,
)
from jobrec_jax.refine.review import Review, check_names, provenance, read_verdicts, write_review
from jobrec_jax.schema.files import write_text
from jobrec_jax.schema.schema import PERSPECTIVES

CHOSEN, RANDOM = 'chosen', 'random'


@dataclasses.dataclass(frozen=True)
class RefineConfig:
  """The section `refine` of the config.

  Raises:
    ValueError: a value lies outside its range; names the key.
  """

  perspectives: tuple[str, ...]
  pairs: int
  flip: float
  budget: float
  verdicts: int
  reviewers: str
  error_rates: tuple[float, ...]
  people: tuple[str, ...]

  def __post_init__(self):
    given = set(self.perspectives)
    if not given <= set(PERSPECTIVES) or not 0 < len(given) == len(self.perspectives):
      raise ValueError(f'refine.perspectives must be some of {PERSPECTIVES}, each once, '
                       f'got {self.perspectives!r}')
    if self.reviewers not in ('simulated', 'people'):
      raise ValueError("refine.reviewers must be 'simulated' or 'people', "
                       f'got {self.reviewers!r}')
    ranges = {'pairs': (10, math.inf), 'flip': (0, 0.49), 'budget': (0, 1),
              'verdicts': (1, len(self.names))}
    for name, (low, high) in ranges.items():
      if not low <= getattr(self, name) <= high:
        raise ValueError(f'refine.{name} must lie in [{low:g}, {high:g}], '
                         f'got {getattr(self, name)!r}')
    if not all(0 <= rate < 0.5 for rate in self.error_rates):
      raise ValueError(f'refine.error_rates must lie in [0, 0.5), got {self.error_rates!r}')
    try:
      check_names(self.people)
    except ValueError as error:
      raise ValueError(f'refine.people: {error}') from error

  @property
  def names(self) -> tuple[str, ...]:
    if self.reviewers == 'people':
      return tuple(self.people)
    return tuple(f'expert_{i + 1}' for i in range(len(self.error_rates)))


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


def machine_labels(rules: RefineConfig, seed: int, dataset: Dataset,
                   truth: Truth | None) -> dict[str, Labels]:
  """The labels to refine, by perspective.

  With a truth: its outcomes at uniform pairs, censored by nothing, flipped at a known rate. Without
  one: the observed labels; of a pair that several splits hold, the first.
  """
  labels = {}
  for name in rules.perspectives:
    if truth is None:
      log = dataset.interactions
      log = log.where(getattr(log, name) != UNOBSERVED)
      _, first = np.unique(log.candidate.astype(np.int64) * len(dataset.jobs) + log.job,
                           return_index=True)
      log = log.where(np.sort(first))
      labels[name] = Labels(log.candidate, log.job, getattr(log, name) == 1)
      continue
    rng = stream(seed, 'labels', name)
    outcome, probability = {'preference': (truth.wants, truth.preference),
                            'qualification': (truth.eligible, truth.qualification)}[name]
    drawn = rng.choice(outcome.size, min(rules.pairs, outcome.size), replace=False)
    candidate, job = np.divmod(np.sort(drawn), len(dataset.jobs))
    true = outcome[candidate, job]
    flipped = rng.random(len(true)) < rules.flip
    labels[name] = Labels(candidate, job, true ^ flipped, true,
                          probability[candidate, job].astype(np.float64))
  return labels


def stream(seed: int, *names: str) -> np.random.Generator:
  """A random stream of its own for each use."""
  digest = hashlib.sha256('/'.join(names).encode()).digest()
  return np.random.default_rng([seed, int.from_bytes(digest[:8], 'little')])


def choose(rules: RefineConfig, seed: int, dataset: Dataset,
           labels: dict[str, Labels]) -> dict[str, dict]:
  """By perspective: the estimated flip rate, the chosen pairs, and as many random ones."""
  plan = {}
  for name, l in labels.items():
    try:
      found = suspect(pair_features(dataset, l.candidate, l.job), l.machine, seed)
    except ValueError as error:
      raise ValueError(f'{name}: {error}') from error
    rng = stream(seed, 'choice', name)
    count = budget_size(len(l.machine), rules.budget)
    plan[name] = {'flip': found.flip}
    for kind, rows in ((CHOSEN, most_doubtful(found.wrong, count)),
                       (RANDOM, rng.choice(len(l.machine), count, replace=False))):
      rows = rng.permutation(rows)  # the place in the review says nothing of the doubt
      dealt = assign(count, len(rules.names), rules.verdicts, rng)
      plan[name][kind] = Choice(rows, found.posterior[rows], dealt)
  return plan


def load_plan(rules: RefineConfig, seed: int, run: setup.Run, dataset: Dataset,
              labels: dict[str, Labels]) -> dict[str, dict]:
  """The plan that lies in the run folder, or a new one that is put there.

  Raises:
    ValueError: the one that lies there was made from other data or settings.
  """
  h = hashlib.sha256()
  for l in labels.values():
    for array in (l.candidate, l.job, l.machine):
      h.update(np.ascontiguousarray(array, np.int64).tobytes())
  made_from = json.loads(json.dumps({**dataclasses.asdict(rules), 'seed': seed,
                                     'data': dataset.fingerprint(), 'labels': h.hexdigest()[:16]}))
  path = run / 'selection.json'
  if not path.exists():
    plan = choose(rules, seed, dataset, labels)
    stored = {name: {key: value if key == 'flip' else {k: v.tolist() for k, v in
                                                       value._asdict().items()}
                     for key, value in part.items()} for name, part in plan.items()}
    write_text(path, json.dumps({'made_from': made_from, 'perspectives': stored}) + '\n')
  stored = json.loads(path.read_text())
  different = sorted(k for k in made_from if stored['made_from'].get(k) != made_from[k])
  if different:
    raise ValueError(f'{path}: was chosen with other settings or data (different: {different}); '
                     'use another --workdir or those of the first run')
  return {name: {key: value if key == 'flip' else Choice(*(np.array(v) for v in value.values()))
                 for key, value in part.items()} for name, part in stored['perspectives'].items()}


def make_review(dataset: Dataset, labels: dict[str, Labels], plan: dict[str, dict],
                names: tuple[str, ...]) -> Review:
  """All chosen pairs, one question after the other."""
  parts = [(PERSPECTIVES.index(name), labels[name], plan[name][CHOSEN]) for name in labels]
  return Review(
      dataset, np.concatenate([np.full(len(c.rows), p) for p, _, c in parts]),
      np.concatenate([l.candidate[c.rows] for _, l, c in parts]),
      np.concatenate([l.job[c.rows] for _, l, c in parts]),
      np.concatenate([c.dealt for _, _, c in parts]), names)


def ask_people(run: setup.Run, review: Review) -> np.ndarray:
  """Writes what is not written yet, reads what came back, and says what is missing."""
  (run / 'verdicts').mkdir(exist_ok=True)
  for path in write_review(review, run / 'review'):
    print(f'wrote {path}')
  verdicts = read_verdicts(review, sorted((run / 'verdicts').glob('*.csv')))
  for name, given, asked in zip(review.names, (verdicts != NONE).sum(0), review.dealt.sum(0)):
    print(f'{name}: {given} of {asked} verdicts')
  if (verdicts != NONE).sum() < review.dealt.sum():
    print(f'Give each reviewer their page, {run / "review"}/review_NAME.html (or the sheet beside '
          f'it).\nPut the files that they save, whole or partial, into {run / "verdicts"}/ and run '
          'this again.')
  return verdicts


def ask_simulated(rules: RefineConfig, seed: int, labels: dict[str, Labels],
                  plan: dict[str, dict], kind: str) -> np.ndarray:
  """[N, E] verdicts of simulated experts on all perspectives' pairs, in the review's order."""
  return np.concatenate([
      simulate_verdicts(l.truth[plan[name][kind].rows], plan[name][kind].dealt,
                        rules.error_rates, stream(seed, 'verdicts', name, kind))
      for name, l in labels.items()])


def removed(labels: Labels, choice: Choice, refined: Refined) -> int:
  """Errors mended minus errors made."""
  truth = labels.truth[choice.rows]
  return int((labels.machine[choice.rows] != truth).sum() - (refined.label != truth).sum())


def summarise(rules: RefineConfig, labels: Labels, part: dict, verdicts: np.ndarray,
              refined: Refined) -> dict:
  """What the review of one perspective did, as JSON."""
  choice, aggregate = part[CHOSEN], refined.aggregate
  kappas = cohen_kappas(np.maximum(verdicts, NONE))
  summary = {
      'pairs': len(labels.machine), 'reviewed': int((verdicts >= 0).any(1).sum()),
      'chosen': len(choice.rows), 'changed': int(refined.changed.sum()),
      'estimated_flip': part['flip'], 'fleiss_kappa': fleiss_kappa(np.maximum(verdicts, NONE)),
      'cohen_kappa': [{'experts': [rules.names[i], rules.names[j]], 'kappa': k, 'pairs': n}
                      for (i, j), (k, n) in kappas.items()],
      'experts': [{'name': name, 'verdicts': int((verdicts[:, e] >= 0).sum()),
                   'error': float(aggregate.error[e]),
                   'sensitivity': float(aggregate.sensitivity[e]),
                   'specificity': float(aggregate.specificity[e])}
                  for e, name in enumerate(rules.names)]}
  if labels.truth is not None:
    wrong = labels.machine != labels.truth
    oracle = posterior_of(labels.open, labels.machine, rules.flip)
    best = most_doubtful(np.where(labels.machine, 1 - oracle, oracle), len(choice.rows))
    gone = removed(labels, choice, refined)
    summary |= {'errors_before': int(wrong.sum()), 'errors_after': int(wrong.sum()) - gone,
                'errors_removed': gone, 'lift': float(wrong[choice.rows].mean() / wrong.mean()),
                'oracle_lift': float(wrong[best].mean() / wrong.mean())}
  return summary


def compare_with_random(rules: RefineConfig, seed: int, labels: dict[str, Labels],
                        plan: dict[str, dict], summaries: dict[str, dict]) -> None:
  """Adds what the same experts, asked about as many random pairs, would have removed."""
  verdicts = ask_simulated(rules, seed, labels, plan, RANDOM)
  for (name, l), said in zip(labels.items(), split(verdicts, plan, RANDOM)):
    choice, summary = plan[name][RANDOM], summaries[name]
    gone = removed(l, choice, refine(l.machine[choice.rows], choice.posterior, said))
    summary |= {'random_errors_removed': gone,
                'ratio': summary['errors_removed'] / gone if gone > 0 else math.inf}
    for expert, rate in zip(summary['experts'], rules.error_rates):
      expert['true_error'] = rate


def split(rows: np.ndarray, plan: dict[str, dict], kind: str) -> list[np.ndarray]:
  """The perspectives' parts of what runs over all pairs of a review."""
  return np.split(rows, np.cumsum([len(part[kind].rows) for part in plan.values()])[:-1])


def write_labels(run: setup.Run, dataset: Dataset, name: str, labels: Labels, rows: np.ndarray,
                 refined: Refined) -> None:
  """All pairs in the published layout of labels, the reviewed ones with their new label."""
  label = labels.machine.copy()
  label[rows] = refined.label
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(('user', 'item', LABEL_COLUMNS[name]))
  writer.writerows((dataset.candidates[u].id, dataset.jobs[i].id, int(y))
                   for u, i, y in zip(labels.candidate, labels.job, label))
  write_text(run / f'labels_{name}.csv', out.getvalue())


def finite(value):
  """JSON has no nan: null."""
  if isinstance(value, dict):
    return {k: finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def in_words(name: str, s: dict) -> Iterable[str]:
  """The summary of a perspective for people."""
  yield (f'{name}: {s["reviewed"]} of {s["pairs"]} pairs reviewed, {s["changed"]} labels changed; '
         f'estimated share of flipped labels {s["estimated_flip"]:.3f}')
  if 'errors_before' in s:
    yield (f'  errors {s["errors_before"]} -> {s["errors_after"]}; among the chosen '
           f'{s["lift"]:.2f} times as frequent as overall (at best {s["oracle_lift"]:.2f}, with '
           'the true probabilities known)')
  if 'ratio' in s:
    yield (f'  removed {s["errors_removed"]}, by as many random pairs '
           f'{s["random_errors_removed"]}: ratio {s["ratio"]:.2f}')
  kappas = [k['kappa'] for k in s['cohen_kappa'] if math.isfinite(k['kappa'])]
  between = f'{min(kappas):.3f} to {max(kappas):.3f}' if kappas else 'undefined'
  yield f'  Fleiss\' kappa {s["fleiss_kappa"]:.3f}; Cohen\'s kappa of two experts {between}'
  for e in s['experts']:
    true = f' (true {e["true_error"]:.3f})' if 'true_error' in e else ''
    yield f'  {e["name"]}: {e["verdicts"]} verdicts, estimated error {e["error"]:.3f}{true}'


def main(config: ConfigDict, workdir: str) -> None:
  settings = setup.validate(config)
  rules = section(RefineConfig, config.refine)
  run = setup.Run(workdir)
  dataset, truth = setup.load_data(config, settings.market)
  simulated = rules.reviewers == 'simulated'
  if simulated and truth is None:
    raise ValueError("refine.reviewers must be 'people' where data.source is not 'simulated': "
                     "simulated experts need a truth, got 'simulated'")
  labels = machine_labels(rules, config.seed, dataset, truth)
  plan = load_plan(rules, config.seed, run, dataset, labels)
  run.start(config, 'refine')
  review = make_review(dataset, labels, plan, rules.names)
  if simulated:
    verdicts = ask_simulated(rules, config.seed, labels, plan, CHOSEN)
  else:
    verdicts = ask_people(run, review)
    if (verdicts == NONE).all():
      return
  summaries, sources = {}, []
  for (name, l), said in zip(labels.items(), split(verdicts, plan, CHOSEN)):
    rows, posterior, _ = plan[name][CHOSEN]
    refined = refine(l.machine[rows], posterior, np.maximum(said, NONE))
    write_labels(run, dataset, name, l, rows, refined)
    summaries[name] = summarise(rules, l, plan[name], said, refined)
    sources.append((l.machine[rows], posterior, refined.aggregate.posterior, refined.label))
  if simulated:
    compare_with_random(rules, config.seed, labels, plan, summaries)
  log = provenance(review, verdicts, *(np.concatenate(column) for column in zip(*sources)))
  write_text(run / 'provenance.jsonl', ''.join(json.dumps(row) + '\n' for row in log))
  missing = int(review.dealt.sum() - (verdicts != NONE).sum())
  write_text(run / 'refine.json', json.dumps(finite(
      {'review': review.fingerprint, 'missing_verdicts': missing, 'perspectives': summaries}),
      indent=2) + '\n')
  for name, summary in summaries.items():
    print('\n'.join(in_words(name, summary)))
  print(f'Labels, provenance and numbers: {run.folder}')


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
