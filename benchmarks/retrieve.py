"""Recall, time and C of `recommend --retrieve` and of its rivals, against scoring every pair.

  python -m benchmarks.retrieve --run=RUN --jobs=10000 [--candidates=20] [--drawn=0.5]
  python -m benchmarks.retrieve        writes the table of RESULTS.md from the kept rows again

The run's attention must be 'factored': full scoring has the jobs' block states at hand, which are
made once; `shortlist, own states` has none and encodes the jobs that it scores. Jobs and
candidates are of a market that the run has not seen. What rivals fit is fitted to the first half of
the jobs; `new` is the recall of the others. With `--drawn` the last layers of both heads are drawn
at random with this deviation, so that the decoder says much that no linear part knows.

| row | what |
|---|---|
| full | `Recommender.score` of one candidate with all jobs |
| shortlist | `Recommender.recommend(shortlist=n)`, reasons included: what `--retrieve` calls |
| linear, dense, codes, bm25 | a first stage alone, whose best n would be scored in full |

Recall@10 is the share of full scoring's ten best among what is shown, of a first stage alone among
its n. Times are of one candidate: seconds by the clock and of the CPU, medians; `times_as_fast` is
the ratio of CPU seconds, which another load on the machine does not move. Rows go to
benchmarks/results/retrieve.json.
"""

from collections.abc import Iterator
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import re
import subprocess
import time

from absl import app, flags
import numpy as np

from benchmarks import retrieve_rivals as rivals
from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.market.simulator import MarketConfig, make_market
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.load import load
from jobrec_jax.schema.files import write_text
from jobrec_jax.scoring.shortlist import FirstStage, shortlist_size

RUN = flags.DEFINE_string('run', None, 'a finished run with factored attention')
JOBS = flags.DEFINE_integer('jobs', 10_000, 'jobs of the catalogue')
CANDIDATES = flags.DEFINE_integer('candidates', 20, 'who are recommended to')
TEACHERS = flags.DEFINE_integer('teachers', 300, 'others, whose scores the dense embedding fits')
DRAWN = flags.DEFINE_float('drawn', 0.0, 'deviation of the last layers of the heads; 0: as trained')
RIVALS = flags.DEFINE_bool('rivals', True, 'measure the rivals')
KEEP = flags.DEFINE_bool('keep', True, 'write the rows')
RESULTS = Path(__file__).parent / 'results/retrieve.json'
PAGE = Path(__file__).parent / 'RESULTS.md'
MARK = re.compile(r'(<!-- retrieve -->\n).*?(<!-- end -->)', re.S)
TOP, PAIRS = 10, 64  # PAIRS: jobs of a teacher
SEED = 77


class Stopwatch:
  """Seconds by the clock and of the CPU of every call, by name."""

  def __init__(self):
    self.taken: dict[str, list[tuple[float, float]]] = {}

  def __call__(self, name: str, call, *args, **how):
    start, cpu = time.perf_counter(), time.process_time()
    out = call(*args, **how)
    self.taken.setdefault(name, []).append(
        (time.perf_counter() - start, time.process_time() - cpu))
    return out

  def medians(self, name: str) -> dict[str, float]:
    clock, cpu = (np.median(x) for x in zip(*self.taken[name]))
    return {'seconds': round(float(clock), 4), 'core_seconds': round(float(cpu), 4)}


def recommender(market_jobs: int):
  """The run's recommender with a new market's jobs, and that market's candidates."""
  run = load(RUN.value)
  found = run.recommender
  if found.experts.model.config.attention != 'factored':
    raise ValueError("--run must be a run with model.attention='factored', got 'exact'")
  config = dict(run.settings['market']) | {
      'candidates': CANDIDATES.value + TEACHERS.value, 'jobs': market_jobs, 'exposure': 1e-3}
  market = make_market(MarketConfig(**config), SEED)
  people = [c for k in range(market.blocks) for c in market.candidates(market.columns(k))]
  experts = found.experts
  if DRAWN.value:
    rng, params = np.random.default_rng(SEED), dict(experts.params)
    for name in experts.model.config.experts:
      last = params[name]['logit']
      kernel = rng.normal(0, DRAWN.value, last['kernel'].shape).astype(np.float32)
      params[name] = params[name] | {'logit': last | {'kernel': kernel}}
    experts = dataclasses.replace(experts, params=params)
  return dataclasses.replace(found, experts=experts, jobs=market.jobs), people


class Rivals:
  """The rivals' first stages: name -> a call (candidate, rank, count) -> jobs."""

  def __init__(self, found, catalogue, people, known: np.ndarray):
    blocks = catalogue.scorer.blocks.with_candidates(people)
    scorer = catalogue.scorer.with_blocks(blocks)
    words = [x * np.asarray(found.experts.params['number_scale'])[-x.shape[1]:]
             for x in (blocks._candidate_words, blocks._job_words)]
    states = [rivals.pooled(found.experts, x, side) for x, side in (
        (blocks.candidates, 'candidate'), (blocks.jobs, 'job'))]
    taught = np.arange(CANDIDATES.value, len(people))
    known_jobs = np.flatnonzero(known)
    self._people, self._jobs = (rivals.Embedding(x, at)(x, w) for x, at, w in zip(
        states, (taught, known_jobs), words))
    job = np.random.default_rng(SEED).choice(known_jobs, (len(taught), PAIRS))
    said = scorer.scores(np.broadcast_to(taught[:, None], job.shape), job)
    self._dense = rivals.fit_dense(self._people[taught], self._jobs[job],
                                   np.stack([said.preference, said.qualification], -1))
    self._trie = rivals.make_trie(self._jobs, known)
    none = np.zeros(0, np.int32)
    self._lexical = rivals.Lexical(Dataset(found.schema, tuple(people), catalogue.jobs,
                                           Interactions(*[none] * 6)))
    self._experts, self._blocks = found.experts, blocks
    self.stages = {'linear': self.linear, 'dense': self.dense, 'codes': self.codes,
                   'bm25': self.bm25}

  def linear(self, u: int, rank: rivals.Rank, count: int) -> np.ndarray:
    return _best(rank(FirstStage(self._experts, self._blocks, u).linear()), count)

  def dense(self, u: int, rank: rivals.Rank, count: int) -> np.ndarray:
    return _best(rank(self._jobs @ self._query(u).T), count)

  def codes(self, u: int, rank: rivals.Rank, count: int) -> np.ndarray:
    return rivals.beam_search(self._trie, self._query(u), rank, count)

  def bm25(self, u: int, rank: rivals.Rank, count: int) -> np.ndarray:
    del rank  # words know of no requirement
    return _best(self._lexical(u), count)

  def _query(self, u: int) -> np.ndarray:
    return np.einsum('a,eab->eb', self._people[u], self._dense).astype(np.float32)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
  return np.argpartition(-scores, count - 1)[:count]


def measure() -> Iterator[list[dict]]:
  """The rows so far, after every candidate."""
  found, people = recommender(JOBS.value)
  start = time.perf_counter()
  catalogue = found._catalogue(None)
  reading = time.perf_counter() - start
  print(f'read {len(catalogue.jobs)} jobs in {reading:.1f} s', flush=True)
  policy, J = found.policy, len(catalogue.jobs)
  taus = [0.0, round(float(policy.knots.mean()), 3), round(float(policy.knots[-1]), 3)]
  count, known = shortlist_size(J, TOP), np.arange(J) < J // 2
  at = {job.id: j for j, job in enumerate(catalogue.jobs)}
  watch, hits = Stopwatch(), {}
  asked = people[:CANDIDATES.value]

  def shown(person, tau: float):
    return found.recommend(person, tau, TOP, shortlist=count)[0]
  for _ in range(2):  # the first compiles
    shown(people[-1], taus[0])
  for person in asked:
    watch('shortlist, own states', shown, person, taus[1])
  start = time.perf_counter()
  found.score(people[-1])  # states of all jobs are kept from here on
  print(f'encoded and scored once in {time.perf_counter() - start:.1f} s', flush=True)
  shown(people[-1], taus[0])
  stages = Rivals(found, catalogue, people, known).stages if RIVALS.value else {}
  for u, person in enumerate(asked):
    full = watch('full', found.score, person)
    for tau in taus:
      s, _ = policy.at(full.lam, full.s_pref, full.z_qual, tau)
      C = float(policy.eligibility(s, full.p_qual, np.ones(s.shape, bool))[0])
      best = np.argsort(-s[0], kind='stable')[:TOP]

      def rank(scores: np.ndarray, tau: float = tau) -> np.ndarray:
        lam = np.zeros((len(scores), len(policy.knots)), np.float32)
        return policy.at(lam, scores[:, 0], found.calibration.logit(scores[:, 1]), tau)[0]
      said = watch('shortlist', shown, person, tau)
      chosen = {'shortlist': np.array([at[job.job_id] for job in said.jobs])}
      for name, stage in stages.items():
        chosen[name] = watch(name, stage, u, rank, count)
      for name, jobs in chosen.items():
        hit = np.isin(best, jobs)
        hits.setdefault((name, tau), []).append(
            (hit.sum(), hit[~known[best]].sum(), (~known[best]).sum(),
             abs(said.eligibility - C) if name == 'shortlist' else np.nan, C))
    print(u, {n: round(float(np.mean([h[0] for h in hits[n, taus[1]]]) / TOP), 3)
              for n in chosen}, flush=True)
    yield rows(found, watch, hits, J, count, taus[1])


def rows(found, watch: Stopwatch, hits: dict, J: int, count: int, tau: float) -> list[dict]:
  about = {'jobs': J, 'candidates': len(watch.taken['full']), 'drawn': DRAWN.value}
  full = watch.medians('full')
  ratio = {name: round(float(np.median([a[1] for a in watch.taken['full']])
                             / np.median([b[1] for b in watch.taken[name]])), 1)
           for name in watch.taken}
  out = [{'row': 'full', **about, 'scored': J, **full},
         {'row': 'shortlist, own states', **about, 'scored': count, 'tau': tau,
          **watch.medians('shortlist, own states'),
          'times_as_fast': ratio['shortlist, own states']}]
  for (name, tau), found_there in hits.items():
    hit, new, news, error, C = map(np.array, zip(*found_there))
    row = {'row': name, **about, 'tau': tau, 'mu': round(float(found.policy.tilts.at(tau)), 3),
           'scored': count, 'recall': round(float(hit.mean()) / TOP, 4),
           'recall_new': round(float(new.sum() / max(news.sum(), 1)), 4),
           'least_recall': round(float(hit.min()) / TOP, 2), **watch.medians(name),
           'times_as_fast': ratio[name]}
    if name == 'shortlist':
      row |= {'C': round(float(C.mean()), 4), 'C_error': round(float(error.mean()), 5),
              'most_C_error': round(float(error.max()), 5)}
    out.append(row)
  return out


COLUMNS = ('jobs', 'heads', 'system', 'scored in full', 'Recall@10 by τ', 'of new jobs',
           'C off by, at most', 'milliseconds', 'of the CPU', 'times as fast')


def table(kept: list[dict]) -> str:
  """The kept rows, a line a system: Recall@10 from the least requirement to the greatest."""
  systems: dict[tuple, list[dict]] = {}
  for row in kept:
    systems.setdefault((row['jobs'], row['drawn'], row['row']), []).append(row)
  lines = [COLUMNS, ('---:', '---', '---', '---:', '---', '---', *['---:'] * 4)]
  for (jobs, drawn, name), of in systems.items():
    recall, new = (', '.join(f'{r[key]:.2f}' for r in of if key in r) or '–'
                   for key in ('recall', 'recall_new'))
    errors = [r['most_C_error'] for r in of if 'most_C_error' in r]
    lines.append((f'{jobs:,}', 'drawn' if drawn else 'trained', name, f"{of[0]['scored']:,}",
                  recall, new, f'{max(errors):.4f}' if errors else '–',
                  *(f'{1000 * of[0][key]:,.3g}' if of[0][key] < 1 else f'{1000 * of[0][key]:,.0f}'
                    for key in ('seconds', 'core_seconds')),
                  f"{of[0].get('times_as_fast', 1):,.0f}"))
  return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def render(page: str) -> str:
  """The page with its table written from the kept rows."""
  return MARK.sub(lambda m: f'{m[1]}{table(json.loads(RESULTS.read_text()))}\n{m[2]}', page)


def describe() -> dict:
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  return {'commit': commit, 'cores': len(os.sched_getaffinity(0)), 'machine': platform.machine(),
          'load': round(os.getloadavg()[0], 1), 'python': platform.python_version()} | {
              name: importlib.metadata.version(name) for name in ('jax', 'numpy')}


def main(argv: list[str]) -> None:
  del argv
  if RUN.value is None:
    write_text(PAGE, render(PAGE.read_text()))
    return
  use_compilation_cache()
  kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
  for made in measure():
    made = [row | describe() for row in made]
    subject = {(r['jobs'], r['drawn']) for r in made}
    kept = [r for r in kept if (r['jobs'], r['drawn']) not in subject] + made
    if KEEP.value:
      write_text(RESULTS, '[\n' + ',\n'.join(map(json.dumps, kept)) + '\n]\n')
  for row in made:
    print(row, flush=True)


if __name__ == '__main__':
  app.run(main)
