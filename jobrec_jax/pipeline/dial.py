"""Twenty held-out candidates and their rankings at every knot, for the report's dial."""

from typing import Any

import numpy as np

from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.refine.review import in_words
from jobrec_jax.schema.align import align
from jobrec_jax.schema.files import read_object, write_json
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.scoring.policy import Alone, Policy

CANDIDATES, SHOWN = 20, 5


def make_dial(bench: Bench) -> None:
  """Ranks the held-out lists at every knot and keeps what a person looks at, given a policy."""
  if isinstance(bench.inputs['policy'], Alone):
    return
  dataset, truth = bench.inputs['data']
  lists: RankingLists = bench.inputs['lists'].held_out
  policy = bench.inputs['policy'].policy
  calibration = bench.inputs['calibration'].calibration
  kept = bench.inputs['scores']
  experts = kept.of(lists)
  p_qual = np.asarray(calibration.probability(experts.qualification))
  scores, _ = policy.at(kept.lam_of(lists), experts.preference,
                        np.asarray(calibration.logit(experts.qualification)), policy.knots)
  order = np.argsort(-np.where(lists.mask, scores, -np.inf), axis=-1, kind='stable')
  measured = measures(scores, order, lists, (experts.preference, p_qual), truth,
                      policy)
  rows = np.sort(np.unique(lists.candidate[:, 0], return_index=True)[1])[:CANDIDATES]
  shown = [_candidate(dataset, lists, row, order[:, row], {
      's_pref': experts.preference[row], 'p_qual': p_qual[row], **(
          {} if truth is None else {'P': truth.preference[lists.candidate[row], lists.job[row]],
                                    'Q': truth.qualification[lists.candidate[row], lists.job[row]]})
  }, scores[:, row] - experts.preference[row]) | {
      'measures': _rounded({k: v[:, row] for k, v in measured.items()})}
      for row in rows]
  used = sorted({int(pair) for c in shown for pair in c['pairs']})
  write_json(bench.folder / 'dial.json', {
      'taus': _rounded(policy.knots), 'asks_nothing': policy.constraint == 'inequality',
      'known': truth is not None, 'lists': len(lists), 'length': int(lists.job.shape[1]),
      'all': _rounded({k: np.nanmean(v, axis=1) for k, v in measured.items()}),
      'candidates': shown,
      'jobs': {str(j): _about(dataset.schema, 'job', dataset.jobs[j]) for j in used}})


def read_dial(bench: Bench) -> dict[str, Any] | None:
  if isinstance(bench.inputs['policy'], Alone):
    return None
  return read_object(bench.folder / 'dial.json')


def measures(scores: np.ndarray, order: np.ndarray, lists: RankingLists,
             experts: tuple[np.ndarray, np.ndarray], truth: Truth | None,
             policy: Policy) -> dict[str, np.ndarray]:
  """What each list gets at each knot, [K, N] each.

  Args:
    scores, order: [K, N, J], the policy's and the places best first.
    lists: [N, J].
    experts: s_pref and p_qual, [N, J].
    truth: P and Q where they are known.
    policy: says what tau binds.

  Returns:
    'C' and, known, 'true C', what tau binds; of the five shown the mean of 's_pref' and
    'p_qual', and known of 'P' and 'Q'.
  """
  preference, p_qual = experts
  values = {'s_pref': preference, 'p_qual': p_qual}
  if truth is not None:
    pairs = lists.candidate, lists.job
    values |= {'P': truth.preference[pairs], 'Q': truth.qualification[pairs]}
  bound = {'C': p_qual} | ({} if truth is None else {'true C': values['Q']})
  found = {name: np.stack([policy.eligibility(s, q, lists.mask) for s in scores])
           for name, q in bound.items()}
  best = order[..., :SHOWN]
  there = np.take_along_axis(np.broadcast_to(lists.mask, scores.shape), best, -1)
  for name, x in values.items():
    picked = np.take_along_axis(np.broadcast_to(x, scores.shape), best, -1)
    found[name] = (picked * there).sum(-1) / there.sum(-1)
  return found


def _candidate(dataset: Dataset, lists: RankingLists, row: int, order: np.ndarray,
               values: dict[str, np.ndarray], lift: np.ndarray) -> dict[str, Any]:
  """One list: its candidate, the best jobs at each knot, and each of these pairs once."""
  candidate = dataset.candidates[lists.candidate[row, 0]]
  count = int(lists.mask[row].sum())
  best = order[:, :min(SHOWN, count)]
  place = {int(column): i + 1 for i, column in enumerate(order[0, :count])}
  pairs = {}
  for column in np.unique(best):
    job = int(lists.job[row, column])
    reasons = [[f.in_words(), f.verdict] for f in align(
        dataset.schema, candidate, dataset.jobs[job]).fields() if f.verdict]
    pairs[str(job)] = {
        'first': place[int(column)], 'applied': bool(lists.relevance[row, column]),
        'reasons': reasons, **{k: round(float(v[column]), 4) for k, v in values.items()}}
  return {**_about(dataset.schema, 'candidate', candidate), 'pairs': pairs,
          'ranked': [[int(lists.job[row, c]) for c in at] for at in best],
          'lift': [[round(float(lift[k, c]), 3) for c in at] for k, at in enumerate(best)]}


def _about(schema: Schema, side: str, entity: Entity) -> dict[str, Any]:
  """Its id and its record in words."""
  shown = [a for a in schema.attributes(side) if a.rendered]
  labels = {a.name: a.label for a in shown}
  return {'id': entity.id, 'about': [[labels[name], words] for name, words in
                                     in_words(entity, shown).items()]}


def _rounded(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _rounded(v) for k, v in value.items()}
  return [round(float(x), 4) for x in value]
