"""What every system says of the held-out lists: drawn once, scored once, kept for every measure."""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from jobrec_jax.baselines import rivals
from jobrec_jax.baselines.base import Baseline
from jobrec_jax.baselines.random_scorer import Constant, Random
from jobrec_jax.data.dataset import SPLITS, Dataset, Truth
from jobrec_jax.data.lists import (
    CENTRES,
    RankingLists,
    candidates_of,
    labelled_lists,
    load_lists,
    policy_lists,
    save_lists,
    truth_lists,
    warm_jobs,
)
from jobrec_jax.pipeline.experts import scorer
from jobrec_jax.pipeline.perspectives import has_contrast, perspectives
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_array, load_arrays, save_array, save_arrays
from jobrec_jax.schema.schema import PERSPECTIVES, Schema
from jobrec_jax.scoring.features import PairScores

HELD_OUT, FULL = 'held-out lists', 'full ranking'
SAMPLED = 200  # held-out candidates of jobrec_synth whose pairs with all jobs are ranked
Case = tuple[str, str]  # split (or where else the lists are of), perspective
# What a perspective's lists hold along the other axis.
ACROSS = {'preference': 'candidates of a job', 'qualification': 'jobs of a candidate'}


def across(split: str, perspective: str) -> Case:
  """The case of the lists that lie along the other axis than those of (split, perspective)."""
  return f'{split}, {ACROSS[perspective]}', perspective


def split_of(where: str) -> str:
  """The split of a case, whichever its axis."""
  return next((where.removesuffix(f', {what}') for what in ACROSS.values()
               if where.endswith(f', {what}')), where)


class EvaluationLists(NamedTuple):
  """The lists that every system ranks alike.

  Attributes:
    cases: by split and perspective. 'cold candidates' crosses test candidates with jobs that
      training has seen, 'both cold' with those that it has not; 'test' holds labelled pairs. Where
      no test candidate has labels of both kinds, its preference is that of lists like stage 2's:
      an applied job among others. jobrec_synth has stored lists of 1 + n, and where its truth is
      known a 'full ranking' of some held-out candidates and all jobs. Jobs of a candidate for
      preference, candidates of a job for qualification; `across` names the others, which follow.
    held_out: lists of the size and sampling of stage 2's, of test candidates; None without policy.
  """

  cases: dict[Case, RankingLists]
  held_out: RankingLists | None

  @property
  def split(self) -> str:
    """Where systems are compared first."""
    return next(iter(self.cases))[0]

  @property
  def wanted(self) -> RankingLists:
    """The lists on which the policy is shown."""
    return self.cases[self.split, 'preference']

  def pair_cases(self, perspective: str) -> list[Case]:
    """Those whose pairs are every pair of held-out candidates and some jobs, each once; without
    truths, labelled pairs. Lists of 1 + n are neither: they are drawn by their outcome.
    """
    if (FULL, perspective) in self.cases:
      return [(FULL, perspective)]
    if ('warm', perspective) in self.cases:
      cases = [across(split, perspective) for split in ('cold candidates', 'both cold')]
      return [case for case in cases if case in self.cases]
    return [case for case, x in self.cases.items()
            if case[1] == perspective and x.centre == CENTRES[perspective]]


def make_lists(bench: Bench) -> None:
  """The full ranking of a simulated market, the frozen lists of jobrec_synth, or test labels."""
  s, (dataset, truth) = bench.settings, bench.inputs['data']
  unseen = 'test' if truth is None else 'cold_candidates'
  taught = perspectives(dataset)
  cases = ranked_lists(s, dataset, truth, bench.resources.folder)
  bare = 'preference' in taught and not any(
      (x.perspective, x.centre) == ('preference', 'candidate') for x in cases.values())
  held_out = {}
  if bare or len(taught) > 1:
    drawn = policy_lists(dataset, unseen, s['list_length'], s['held_out'],
                         streams.seed32(s['seed'], 'held-out lists'))
    held_out = {f'{HELD_OUT}/preference': drawn} if len(taught) > 1 else {}
    cases = ({('test', 'preference'): drawn} if bare else {}) | cases
  for case, lists in cases.items():
    logging.info('evaluation lists %s: %d, fingerprint %s', '/'.join(case), len(lists),
                 lists.fingerprint())
  save_lists(bench.folder / 'lists.npz',
             {'/'.join(c): x for c, x in cases.items()} | held_out)


def read_lists(bench: Bench) -> EvaluationLists:
  named = load_lists(bench.folder / 'lists.npz')
  cases = {tuple(name.split('/')): lists for name, lists in named.items()}
  held_out = cases.pop((HELD_OUT, 'preference'), None)
  return EvaluationLists(cases, held_out)


def ranked_lists(s: dict[str, Any], dataset: Dataset, truth: Truth | None,
                 folder: str) -> dict[Case, RankingLists]:
  """The lists of the perspectives that have an expert, and that some list can tell.

  Args:
    s: settings of the stage.
    dataset, truth: of the run.
    folder: where jobrec_synth lies.
  """
  taught, log = perspectives(dataset), dataset.interactions
  if s['source'] == 'jobrec_synth':
    return synth_lists(s, dataset, truth, folder)
  if truth is None:
    return {case: labelled_lists(dataset, 'test', case[1], centre) for case, centre in
            both_axes(['test'], taught) if has_contrast(log.of('test'), case[1], centre)}
  candidates, warm = evaluated_candidates(dataset, s['candidates'], s['seed']), warm_jobs(dataset)
  cold = np.unique(log.of('both_cold').job)
  grids = {split: jobs for split, jobs in (('cold candidates', warm), ('both cold', cold))
           if len(jobs)}
  return full_rankings(truth, candidates, grids, s['seed'], taught)


def full_rankings(truth: Truth, candidates: np.ndarray, grids: dict[str, np.ndarray], seed: int,
                  taught: Iterable[str]) -> dict[Case, RankingLists]:
  """All pairs of candidates and of the jobs of each grid, along both axes."""
  order = streams.seed32(seed, 'order of full rankings')
  return {case: truth_lists(truth, case[1], candidates, grids[split_of(case[0])], order, centre)
          for case, centre in both_axes(grids, taught)}


def both_axes(splits: Iterable[str], taught: Iterable[str]) -> list[tuple[Case, str]]:
  """The cases of some splits with their centre: first those of the perspectives' own axes."""
  own = [(split, p) for split in splits for p in taught]
  other = {'candidate': 'job', 'job': 'candidate'}
  return [*((case, CENTRES[case[1]]) for case in own),
          *((across(*case), other[CENTRES[case[1]]]) for case in own)]


def evaluated_candidates(dataset: Dataset, count: int, seed: int) -> np.ndarray:
  """Held-out candidates: so many of them at random, or all for 0."""
  candidates = candidates_of(dataset, 'cold_candidates')
  if 0 < count < len(candidates):
    rng = streams.rng(seed, 'evaluated candidates')
    candidates = np.sort(rng.choice(candidates, count, replace=False))
  return candidates


def synth_lists(s: dict[str, Any], dataset: Dataset, truth: Truth | None,
                folder: str) -> dict[Case, RankingLists]:
  """The stored lists of jobrec_synth, and a full ranking of some held-out candidates on both axes.

  Where the truth of all pairs is not stored, the other axis holds the labelled pairs of the
  candidates of the stored lists.
  """
  # Here, for tensorflow-datasets takes a second to import.
  from jobrec_jax.data.market.jobrec_synth.reader import read_synth_lists
  drawn = read_synth_lists(folder, s['size'], s['version'])
  kinds = ('cold_candidates', 'warm', 'cold_jobs', 'both_cold')
  found = {(kind.replace('_', ' '), p): drawn[f'{p}_{kind}']
           for kind in kinds for p in PERSPECTIVES}
  if truth is not None:
    candidates = evaluated_candidates(dataset, s['candidates'] or SAMPLED, s['seed'])
    grids = {FULL: np.arange(len(dataset.jobs))}
    return found | full_rankings(truth, candidates, grids, s['seed'], PERSPECTIVES)
  for kind in kinds:
    for (_, p), centre in both_axes([kind], PERSPECTIVES)[len(PERSPECTIVES):]:
      log = dataset.interactions
      mine = np.isin(log.candidate, drawn[f'{p}_{kind}'].candidate)
      some = dataclasses.replace(dataset, interactions=log.where(
          mine | (log.split == SPLITS.index('train'))))
      if has_contrast(some.interactions.of(kind), p, centre):
        found[across(kind.replace('_', ' '), p)] = labelled_lists(some, kind, p, centre)
  return found


class KeptScores(NamedTuple):
  """Scores of pairs, looked up by pair.

  Attributes:
    jobs: how many jobs the data set has.
    codes: [P] ascending, candidate * jobs + job.
    preference, qualification: [P] the experts' logits.
    policy_codes: [W] ascending, the pairs on which the policy is shown.
    lam: [W, K] its lambda at every knot; [0, K] where it learns nothing, and lambda is 0.
  """

  jobs: int
  codes: np.ndarray
  preference: np.ndarray
  qualification: np.ndarray
  policy_codes: np.ndarray
  lam: np.ndarray

  def of(self, lists: RankingLists) -> PairScores:
    """[N, J] of lists that were named when this was made."""
    at = np.searchsorted(self.codes, pair_codes(lists, self.jobs))
    return PairScores(self.preference[at], self.qualification[at])

  def with_policy(self, lists: RankingLists) -> PairScores | None:
    """Scores and lambda of lists, if the policy is shown on all of their pairs."""
    there = np.isin(pair_codes(lists, self.jobs), self.policy_codes).all()
    return dataclasses.replace(self.of(lists), lam=self.lam_of(lists)) if there else None

  def lam_of(self, lists: RankingLists) -> np.ndarray:
    """[N, J, K] of lists on which the policy is shown."""
    if not len(self.lam):
      return np.zeros((*lists.job.shape, self.lam.shape[1]), np.float32)
    return self.lam[np.searchsorted(self.policy_codes, pair_codes(lists, self.jobs))]


def pair_codes(lists: RankingLists, jobs: int) -> np.ndarray:
  """[N, J] int64, a number for each pair."""
  return lists.candidate.astype(np.int64) * jobs + lists.job


def distinct(lists: list[RankingLists], jobs: int) -> np.ndarray:
  return np.unique(np.concatenate([np.zeros(0, np.int64),
                                   *(pair_codes(x, jobs).ravel() for x in lists)]))


def make_scores(bench: Bench) -> None:
  """The experts' logits of all pairs, and lambda of those on which the policy is shown.

  A policy that learns nothing is no input: then runs whose policies alone differ share the scores.
  """
  lists, dataset = bench.inputs['lists'], bench.inputs['data'].dataset
  score = scorer(bench, bench.inputs['experts'], dataset)
  jobs, trained = len(dataset.jobs), bench.inputs.get('policy')
  ranks = lists.held_out is not None
  logged = bench.inputs['logged'].test
  shown = distinct([lists.held_out, lists.wanted, *([logged.lists] if logged else [])]
                   if ranks else [], jobs)
  rest = np.setdiff1d(distinct(list(lists.cases.values()), jobs), shown)
  with_policy = None
  if ranks and trained is not None:
    with_policy = score.policy_scores(trained.policy, *divmod(shown, jobs), 'policy and experts')
  alone = score.scores(*divmod(rest if with_policy else np.concatenate([shown, rest]), jobs),
                       'experts')
  codes = np.concatenate([shown, rest])
  order = np.argsort(codes)
  arrays = {name: np.concatenate([getattr(x, name) for x in (with_policy, alone) if x])[order]
            for name in PERSPECTIVES}
  lam = with_policy.lam if with_policy else np.zeros((0, bench.settings['knots']), np.float32)
  for name, x in {'codes': codes[order], 'policy_codes': shown, 'lam': lam, **arrays}.items():
    save_array(bench.folder / f'{name}.npy', x)


def read_scores(bench: Bench) -> KeptScores:
  names = KeptScores._fields[1:]
  return KeptScores(len(bench.inputs['data'].dataset.jobs), **{
      name: load_array(bench.folder / f'{name}.npy') for name in names})


def narratives(schema: Schema) -> set[str]:
  """The texts of the layer `narrative`: where a candidate's taste shows, if anywhere."""
  return {name for layer in schema.layers if layer.name == 'narrative' for field in layer.fields
          for side in ('candidate', 'job') for name in field.attributes(side)}


def without_narratives(dataset: Dataset) -> Dataset:
  """The same records with these texts missing."""
  texts = narratives(dataset.schema)

  def blank(entities):
    return tuple(dataclasses.replace(e, attributes={
        k: v for k, v in e.attributes.items() if k not in texts}) for e in entities)
  return dataclasses.replace(dataset, candidates=blank(dataset.candidates),
                             jobs=blank(dataset.jobs))


def make_blanked(bench: Bench) -> None:
  """s_pref of the lists on which the policy is shown, without the narratives.

  Of none where no label teaches preference.
  """
  lists, experts = bench.inputs['lists'], bench.inputs['experts']
  dataset = bench.inputs['data'].dataset
  if (lists.split, 'preference') not in lists.cases:
    save_array(bench.folder / 'preference.npy', np.zeros((0, 0), np.float32))
    return
  wanted = lists.wanted
  score = scorer(bench, experts, dataset).with_blocks(  # whose programs it shares
      experts.blocks(without_narratives(dataset)))
  save_array(bench.folder / 'preference.npy',
             score.scores(wanted.candidate, wanted.job, 'narratives blanked').preference)


def read_blanked(bench: Bench) -> np.ndarray:
  return load_array(bench.folder / 'preference.npy')


def rival_stage(name: str) -> str:
  """The name of the stage that fits a rival."""
  return f'rival-{name.replace(" ", "-").lower()}'


def make_rival(bench: Bench) -> None:
  """Fits a rival for each perspective that it can learn and scores all lists of that one."""
  dataset, name = bench.inputs['data'].dataset, bench.settings['rival']
  rivals.check_installed([name])
  jobs, scored = len(dataset.jobs), {}
  for perspective in PERSPECTIVES:
    mine = {case: x for case, x in bench.inputs['lists'].cases.items() if case[1] == perspective}
    if mine and rivals.RIVALS[name].can_learn(dataset, perspective):
      fitted = rivals.make_rival(name, dataset).fit(dataset, perspective)
      codes = distinct(list(mine.values()), jobs)
      scores = fitted.score(*divmod(codes, jobs)).astype(np.float32)  # each pair once
      scored |= {'/'.join(case): scores[np.searchsorted(codes, pair_codes(lists, jobs))]
                 for case, lists in mine.items()}
  save_arrays(bench.folder / 'scores.npz', scored)


def list_scores(fitted: Baseline, lists: RankingLists) -> np.ndarray:
  """[N, J] float32 scores of a fitted rival."""
  return fitted.score(lists.candidate.ravel(), lists.job.ravel()).reshape(
      lists.job.shape).astype(np.float32)


def make_canaries(bench: Bench) -> None:
  """Scores that know nothing of candidates and jobs; each beats chance only where data leak."""
  dataset, scored = bench.inputs['data'].dataset, {}
  random = Random(streams.seed32(bench.settings['seed'], 'canary')).fit(dataset, PERSPECTIVES[0])
  for case, lists in bench.inputs['lists'].cases.items():
    scores = {'canary: constant': list_scores(Constant(), lists),
              'canary: random': list_scores(random, lists), **canary_scores(dataset, lists)}
    scored |= {'/'.join((*case, name)): x for name, x in scores.items()}
  save_arrays(bench.folder / 'scores.npz', scored)


def canary_scores(dataset: Dataset, lists: RankingLists) -> dict[str, np.ndarray]:
  """Canaries that look at the lists alone: a hash of the ids, the position, train negatives."""
  jobs, shape = len(dataset.jobs), lists.job.shape
  code = pair_codes(lists, jobs)
  train = dataset.interactions.of('train')
  train = train.where(getattr(train, lists.perspective) == 0)
  negatives = train.candidate.astype(np.int64) * jobs + train.job
  hashed = [np.array([_hash(e.id) for e in side], np.uint64)
            for side in (dataset.candidates, dataset.jobs)]
  bits = streams.split_mix(hashed[0][lists.candidate] ^ streams.split_mix(hashed[1][lists.job]))
  return {'canary: id hash': streams.unit(bits),
          'canary: position': np.broadcast_to(-np.arange(shape[1], dtype=np.float32), shape),
          'canary: train negative': -np.isin(code, negatives).astype(np.float32)}


def _hash(name: str) -> int:
  return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), 'little')


def read_list_scores(bench: Bench) -> dict[str, np.ndarray]:
  """[N, J] scores by 'split/perspective', of canaries with '/name' behind it."""
  return load_arrays(bench.folder / 'scores.npz')


def rivals_among(systems: Iterable[str]) -> list[str]:
  """The rivals among some names, in the order in which they are shown."""
  there = set(systems)
  return [name for name in rivals.RIVALS if name in there]


def case_scores(inputs: Any, case: Case) -> Iterator[tuple[str, np.ndarray]]:
  """The rivals' and the canaries' scores of a case, in the order in which they are shown."""
  prefix = '/'.join(case)
  for name in rivals_among(inputs):
    if prefix in inputs[name]:
      yield name, inputs[name][prefix]
  for key, values in inputs['canaries'].items():
    if key.startswith(f'{prefix}/'):
      yield key.removeprefix(f'{prefix}/'), values
