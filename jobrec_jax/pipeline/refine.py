"""The review of doubtful pairs: verdicts of people or simulated experts become labels."""

from collections.abc import Iterable
import csv
import io
import json
import math
from typing import Any

import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.files.paper_csv import LABEL_COLUMNS
from jobrec_jax.pipeline.road import selection_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.selection import CHOSEN, RANDOM, Choice, Labels, Selected
from jobrec_jax.pipeline.settings import RefineSettings
from jobrec_jax.refine.aggregation import NONE, cohen_kappas, fleiss_kappa
from jobrec_jax.refine.doubt import (
    Refined,
    most_doubtful,
    posterior_of,
    refine,
    simulate_verdicts,
)
from jobrec_jax.refine.review import Review, provenance, read_verdicts, write_review
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import null_for_nan, write_json, write_text
from jobrec_jax.schema.schema import PERSPECTIVES

Selection = dict[str, Selected]  # by perspective


def refine_labels(run: Run) -> str:
  """Writes labels, provenance.jsonl and refine.json of the verdicts there are; says what came out.

  With people, the first call writes a page and a sheet for each into RUN/review; what they send
  back is read from RUN/verdicts.

  Raises:
    ValueError: experts are to be simulated where no truth is known, or a file of verdicts is wrong
      or of another review.
  """
  rules, seed = run.settings.refine, run.settings.seed
  simulated = rules.reviewers == 'simulated'
  dataset, truth = run.get(run.road.data)
  if simulated and truth is None:
    raise ValueError("refine.reviewers must be 'people' where data.source knows no truth, which "
                     "simulated experts need, got 'simulated'")
  selection: Selection = run.get(selection_stage(run.settings, run.road))
  review = make_review(dataset, selection, rules.names)
  verdicts = (ask_simulated(rules, seed, selection, CHOSEN) if simulated
              else ask_people(run, review))
  if (verdicts == NONE).all():
    return 'No verdict is given yet.'
  summaries, sources = {}, []
  for (name, part), given in zip(selection.items(), split(verdicts, selection, CHOSEN)):
    labels, (rows, posterior, _) = part.labels, part.choices[CHOSEN]
    refined = refine(labels.machine[rows], posterior, np.maximum(given, NONE))
    write_labels(run, dataset, name, labels, rows, refined)
    summaries[name] = summarise(rules, part, given, refined)
    sources.append((labels.machine[rows], posterior, refined.aggregate.posterior, refined.label))
  if simulated:
    compare_with_random(rules, seed, selection, summaries)
  log = provenance(review, verdicts, *(np.concatenate(column) for column in zip(*sources)))
  write_text(run / 'provenance.jsonl', ''.join(json.dumps(row) + '\n' for row in log))
  missing = int(review.dealt.sum() - (verdicts != NONE).sum())
  write_json(run / 'refine.json', null_for_nan({
      'review': review.fingerprint, 'missing_verdicts': missing, 'perspectives': summaries}),
      indent=2)
  lines = [line for name, summary in summaries.items() for line in in_words(name, summary)]
  return '\n'.join([*lines, f'Labels, provenance and numbers: {run.folder}'])


def make_review(dataset: Dataset, selection: Selection, names: tuple[str, ...]) -> Review:
  """All chosen pairs, one question after the other."""
  parts = [(PERSPECTIVES.index(name), s.labels, s.choices[CHOSEN]) for name, s in selection.items()]
  return Review(
      dataset, np.concatenate([np.full(len(c.rows), p) for p, _, c in parts]),
      np.concatenate([l.candidate[c.rows] for _, l, c in parts]),
      np.concatenate([l.job[c.rows] for _, l, c in parts]),
      np.concatenate([c.dealt for _, _, c in parts]), names)


def ask_people(run: Run, review: Review) -> np.ndarray:
  """Writes what is not written yet, reads what came back, and says what is missing.

  Raises:
    ValueError: a sheet or a file of verdicts is of another review, which other settings or data
      made; another --workdir is to hold this one.
  """
  (run / 'verdicts').mkdir(parents=True, exist_ok=True)
  read_verdicts(review, sorted((run / 'review').glob('*.csv')))  # before a page of another is used
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


def ask_simulated(rules: RefineSettings, seed: int, selection: Selection, kind: str) -> np.ndarray:
  """[N, E] verdicts of simulated experts on all perspectives' pairs, in the review's order."""
  return np.concatenate([
      simulate_verdicts(s.labels.truth[s.choices[kind].rows], s.choices[kind].dealt,
                        rules.error_rates, streams.rng(seed, f'refine, verdicts, {name}, {kind}'))
      for name, s in selection.items()])


def removed(labels: Labels, choice: Choice, refined: Refined) -> int:
  """Errors mended minus errors made."""
  truth = labels.truth[choice.rows]
  return int((labels.machine[choice.rows] != truth).sum() - (refined.label != truth).sum())


def summarise(rules: RefineSettings, part: Selected, verdicts: np.ndarray,
              refined: Refined) -> dict[str, Any]:
  """What the review of one perspective did, as JSON."""
  labels, choice, aggregate = part.labels, part.choices[CHOSEN], refined.aggregate
  kappas = cohen_kappas(np.maximum(verdicts, NONE))
  summary = {
      'pairs': len(labels.machine), 'reviewed': int((verdicts >= 0).any(1).sum()),
      'chosen': len(choice.rows), 'changed': int(refined.changed.sum()),
      'estimated_flip': part.flip, 'fleiss_kappa': fleiss_kappa(np.maximum(verdicts, NONE)),
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


def compare_with_random(rules: RefineSettings, seed: int, selection: Selection,
                        summaries: dict[str, dict]) -> None:
  """Adds what the same experts, asked about as many random pairs, would have removed."""
  verdicts = ask_simulated(rules, seed, selection, RANDOM)
  for (name, part), given in zip(selection.items(), split(verdicts, selection, RANDOM)):
    choice, summary = part.choices[RANDOM], summaries[name]
    gone = removed(part.labels, choice, refine(part.labels.machine[choice.rows], choice.posterior,
                                               given))
    summary |= {'random_errors_removed': gone,
                'ratio': summary['errors_removed'] / gone if gone > 0 else math.inf}
    for expert, rate in zip(summary['experts'], rules.error_rates):
      expert['true_error'] = rate


def split(rows: np.ndarray, selection: Selection, kind: str) -> list[np.ndarray]:
  """The perspectives' parts of what runs over all pairs of a review."""
  sizes = [len(part.choices[kind].rows) for part in selection.values()]
  return np.split(rows, np.cumsum(sizes)[:-1])


def write_labels(run: Run, dataset: Dataset, name: str, labels: Labels, rows: np.ndarray,
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


def in_words(name: str, s: dict[str, Any]) -> Iterable[str]:
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
