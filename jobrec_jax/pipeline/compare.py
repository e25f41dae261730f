"""Systems compared over their runs: what differs, by how much, and whether chance explains it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from jobrec_jax.evaluate.comparison import Combined, combine, holm
from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.pipeline.evaluate import ESTIMATES, read_estimates
from jobrec_jax.pipeline.measures.subject import (
    APPLICANTS,
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    TRUE_PREFERENCE,
    UNIFORM,
    of_the_way,
)
from jobrec_jax.pipeline.record import read_record
from jobrec_jax.pipeline.scores import HELD_OUT
from jobrec_jax.pipeline.stage import canonical
from jobrec_jax.pipeline.store import check_whole
from jobrec_jax.report.compared import (
    BASELINE,
    BETTER,
    OPEN,
    OTHER,
    SAME,
    UNREACHED,
    UNTESTED,
    WORSE,
    ComparedRow,
    Verdict,
)
from jobrec_jax.report.findings import LOSS, REGRET, WITHIN
from jobrec_jax.report.results import ResultRow

LOWER = ('mean_rank', 'calibration error', 'calibration error by job', 'violation@5', '|C − τ|',
         LOSS, REGRET)
OTHER_TRUTH = {PREFERENCE: f'correlation with Q given P{WITHIN}',
               QUALIFICATION: 'correlation with P given Q'}  # 0 is best
NEAR = 0.005  # τ that lie so near ask for the same
WAY = (0.1, 0.25)  # of the measured shares those that most policies reach


class Key(NamedTuple):
  """What a row measures, whichever run it is of.

  Attributes:
    system, split, perspective, metric: as in `ResultRow`.
    requirement: 'requirement 3 of 12', by the rank of the row's τ among those of its run, for each
      run has a grid of its own; 'no requirement' for τ 0; '' without τ.
  """

  system: str
  requirement: str
  split: str
  perspective: str
  metric: str

  @property
  def label(self) -> str:
    perspective = '' if self.perspective == 'policy' else self.perspective
    words = self.system, perspective, self.metric
    return ', '.join(filter(None, (' '.join(filter(None, words)), self.requirement, self.split)))

  @property
  def short(self) -> str:
    """For the head of a column, where the split is plain."""
    at = self.requirement.removeprefix('requirement ')
    what = self.metric.removeprefix('correlation with ')
    if self.system in (PREFERENCE, QUALIFICATION):
      what = f"{self.system.removesuffix(' expert')}: {what}"
    elif self.system and self.system != 'policy':
      what = f'{self.system}: {what}'
    return f'{what}, {at}' if at else what


class Member(NamedTuple):
  """A run of a system.

  Attributes:
    seed: of training.
    data_seed: of the data.
    rows: of its evaluation.
    estimates: of each row; see `pipeline.evaluate.read_estimates`.
  """

  seed: int
  data_seed: int
  rows: Sequence[ResultRow]
  estimates: Sequence[Estimate]


def keyed(member: Member) -> dict[Key, Estimate]:
  """The estimates of a run by what they measure; paired differences within it are left out."""
  ranks = {tau: name for name, tau in requirements_of(member).items()}
  ranks |= {None: '', 0.0: 'no requirement'}
  found = {}
  for row, estimate in zip(member.rows, member.estimates, strict=True):
    if row.against is None:
      rank = ranks[row.tau]
      found[Key(row.system, rank, row.split, row.perspective, row.metric)] = estimate
  return found


def of_system(member: Member, system: str) -> Member:
  """A run of one of the systems that it measured, e.g. a rival, to be compared with another."""
  kept = [(r, e) for r, e in zip(member.rows, member.estimates)
          if r.system == system and r.against is None]
  if not kept:
    raise ValueError(f'system must be one of {sorted({r.system for r in member.rows})}, got '
                     f'{system!r}')
  return Member(member.seed, member.data_seed,
                *zip(*((ResultRow(**vars(r) | {'system': ''}), e) for r, e in kept)))


def headline(keys: Sequence[Key]) -> list[Key]:
  """What a comparison shows first: ranking, calibration, de-conflation, and the policy at equal
  true eligibility, half-way and at the last requirement."""
  asked = max((int(k.requirement.split()[-1]) for k in keys if ' of ' in k.requirement), default=0)
  split, metrics = keys[0].split, {k.metric for k in keys}
  wanted = [(PREFERENCE, '', split, 'preference', 'ndcg@5'),
            (QUALIFICATION, '', split, 'qualification', 'ndcg@5'),
            *((QUALIFICATION, '', where, 'qualification', 'calibration error')
              for where in (UNIFORM, APPLICANTS)),
            *((system, '', UNIFORM, 'policy', metric) for system, metric in OTHER_TRUTH.items()),
            *(('policy', '', split, 'policy', of_the_way(TRUE_PREFERENCE, s)) for s in WAY)]
  for k in dict.fromkeys(((asked + 1) // 2, asked)):
    at = f'requirement {k} of {asked}'
    wanted += [('policy', at, split, 'policy', ELIGIBILITY),
               ('policy', at, split, 'preference', 'ndcg@5'),
               ('policy', at, HELD_OUT, 'policy',
                'true C' if 'true C' in metrics else 'predicted C')]
  return [k for w in wanted for k in keys if k == w or (k.system == '' and k[1:] == w[1:])]


def compare_systems(systems: Mapping[str, Sequence[Member]], reference: str, level: float = 0.95,
                    everything: bool = False) -> list[ComparedRow]:
  """Every system beside the reference.

  Runs of the same data seed are compared on the same candidates and jobs. Where the two have
  the same training seeds, or two at least in common, those runs are paired by them; else both
  systems' seeds add their variance.

  Args:
    systems: name -> its runs.
    reference: the name of the system to compare with.
    level: of the intervals; 1 − level of the tests.
    everything: all common rows instead of the `headline`.

  Returns:
    For each metric the rows of all systems in their order, the reference among them untested.

  Raises:
    ValueError: a system has no run, or one twice; runs of a data seed are over different data.
  """
  by_run, asked = {}, {}
  for name, members in systems.items():
    asked[name] = {(m.data_seed, m.seed): requirements_of(m) for m in members}
    by_run[name] = {(m.data_seed, m.seed): keyed(m) for m in members}
    if not members or len(by_run[name]) < len(members):
      raise ValueError(f'{name}: must be runs of different seeds, got '
                       f'{[(m.data_seed, m.seed) for m in members]} as (data seed, seed)')
  common = [k for k in next(iter(by_run[reference].values()))
            if all(k in found for runs in by_run.values() for found in runs.values())]
  keys = common if everything or not common else headline(common)
  rows = []
  for key in keys:
    for name in systems:
      row, better = _row(name, key, by_run, reference, level)
      if row.verdict in (BASELINE, UNREACHED):
        pass
      elif row.diff == row.low == row.high == 0:
        row = row._replace(p=math.nan, verdict=SAME)
      elif _other_requirement(asked[name], asked[reference], key.requirement):
        row = row._replace(p=math.nan, verdict=OTHER)
      rows.append((row, better))
  adjusted = holm([r.p for r, _ in rows])
  return [row._replace(p_holm=float(p), verdict=_verdict(row, better, p, 1 - level))
          for (row, better), p in zip(rows, adjusted)]


def _row(name: str, key: Key, by_run: dict, reference: str,
         level: float) -> tuple[ComparedRow, bool]:
  """A row without its correction, and whether its difference is for the better."""
  runs = {at: found[key] for at, found in by_run[name].items()}
  rivals = {at: found[key] for at, found in by_run[reference].items()}
  values = np.array([e.value for e in runs.values()])
  mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan
  found, n_seeds, n_data_seeds, verdict = Combined(*[math.nan] * 4, False), 0, 0, UNTESTED
  base = float(np.mean([e.value for e in rivals.values()]))
  if name == reference:
    verdict = BASELINE
  elif math.isnan(mean + base):
    verdict = UNREACHED
  else:
    found, n_seeds, n_data_seeds = _difference(runs, rivals, level)
  if key.metric in LOWER:
    better = found.value < 0
  elif key.metric == OTHER_TRUTH.get(key.system):
    better = abs(mean) < abs(base)
  else:
    better = found.value > 0
  return ComparedRow(name, key.label, key.short, mean, sd, *found[:4], math.nan, n_seeds,
                     n_data_seeds, verdict), bool(better)


def requirements_of(member: Member) -> dict[str, float]:
  """The τ behind each requirement of a run."""
  asked = sorted({r.tau for r in member.rows if r.tau})
  return {f'requirement {i + 1} of {len(asked)}': tau for i, tau in enumerate(asked)}


def _other_requirement(runs: dict, rivals: dict, requirement: str) -> bool:
  """Whether two systems were asked for different τ in a run that both have."""
  return any(abs(runs[at][requirement] - rivals[at][requirement]) > NEAR
             for at in set(runs) & set(rivals) if requirement in runs[at])


def _difference(runs: dict, rivals: dict, level: float) -> tuple[Combined, int, int]:
  """The difference over the data seeds of both, with the number of training and data seeds."""
  by_data = [defaultdict(dict), defaultdict(dict)]
  for sorted_runs, given in zip(by_data, (runs, rivals)):
    for (data_seed, seed), estimate in given.items():
      sorted_runs[data_seed][seed] = estimate
  a, b = by_data
  both = sorted(set(a) & set(b))
  if not both:
    return Combined(*[math.nan] * 4, False), 0, 0
  paired = [sorted(set(a[d]) & set(b[d])) for d in both]
  if all(len(seeds) > 1 or set(a[d]) == set(b[d]) for d, seeds in zip(both, paired)):
    found = combine([[a[d][s] - b[d][s] for s in seeds] for d, seeds in zip(both, paired)], level)
    return found, min(map(len, paired)), len(both)
  found = combine([list(a[d].values()) for d in both], level,
                  [list(b[d].values()) for d in both])
  return found, min(min(len(a[d]), len(b[d])) for d in both), len(both)


def _verdict(row: ComparedRow, better: bool, p_holm: float, alpha: float) -> Verdict:
  if math.isnan(p_holm):
    return row.verdict
  return OPEN if p_holm >= alpha else BETTER if better else WORSE


class Loaded(NamedTuple):
  """A run folder as a comparison needs it.

  Attributes:
    folder: where it lies.
    settings: as run.json holds them.
    data: the key of its data.
    member: its evaluation.
  """

  folder: Path
  settings: dict[str, Any]
  data: str
  member: Member


def load_run(folder: str | Path) -> Loaded:
  """Reads the evaluation of a finished run.

  Raises:
    ValueError: the folder holds no run, or one without an evaluation of this version.
  """
  folder, record = Path(folder), read_record(folder)
  settings, artefacts = record['settings'], record['artefacts']
  place = folder / record['store'] / artefacts.get('evaluation', 'evaluation')
  if not (place / ESTIMATES).is_file():
    raise ValueError(f'{folder}: must hold an evaluation with {ESTIMATES}, got none; make it: '
                     f'python -m experiments.evaluate --workdir={folder}')
  check_whole(place)
  return Loaded(folder, settings, artefacts['data'],
                Member(settings['seed'], settings['data']['seed'], *read_estimates(place)))


def as_systems(runs: Sequence[Loaded]) -> dict[str, list[Loaded]]:
  """Runs that share all settings but their seeds are one system, named by what folders share.

  Raises:
    ValueError: there is one system alone, or runs of a data seed are over different data.
  """
  groups = defaultdict(list)
  for run in runs:
    groups[canonical(without_seeds(run.settings))].append(run)
  paths = [named_place([m.folder for m in members]) for members in groups.values()]
  parts = next((n for n in range(1, max(len(p.parts) for p in paths) + 1)
                if len({p.parts[-n:] for p in paths}) == len(paths)), 0)
  names = ['/'.join(p.parts[-parts:]) for p in paths]
  systems = dict(zip(names, groups.values()))
  if len(systems) < 2:
    raise ValueError('runs must be of two systems at least, got runs that differ in their seeds '
                     f'alone: {", ".join(str(r.folder) for r in runs)}')
  first = {}
  for run in runs:
    other = first.setdefault(run.member.data_seed, run)
    if other.data != run.data:
      keys = [k for k in differing([other.settings, run.settings])
              if k.split('.')[0] in ('data', 'market')]
      raise ValueError(f'{run.folder}: must be over the data of {other.folder} to be compared with '
                       f'it at data.seed {run.member.data_seed}, got other data'
                       + (f' ({", ".join(keys)} differ)' if keys else ''))
  known = {r.member.data_seed for r in systems[names[0]]}
  for name, members in systems.items():
    if not known & {r.member.data_seed for r in members}:
      raise ValueError(f'{members[0].folder}: must have a data seed of {names[0]}, one of '
                       f'{sorted(known)}, for candidates and jobs in common, got '
                       f'{members[0].member.data_seed}; make {name} with '
                       f'--config.data.seed={min(known)}')
  return systems


def named_place(folders: Sequence[Path]) -> Path:
  """The place that names a system: a study's variant, or what run folders share."""
  first = folders[0].resolve()
  if re.fullmatch(r'data-\d+-seed-\d+', first.name) and first.parent.parent.name == 'runs':
    return Path(*first.parts[:-3], first.parent.name)
  return first.with_name(shared_name(folders))


def shared_name(folders: Sequence[Path]) -> str:
  """'a' of 'a-0' and 'a-1'; the folder's name where there is one."""
  names = [f.name for f in folders]
  if len(names) == 1:
    return names[0]
  same = [letters[0] for letters in zip(*names)]
  length = next((i for i, x in enumerate(zip(*names)) if len(set(x)) > 1), len(same))
  return re.sub(r'[-_. ]+(seed)?[-_. ]*$', '', names[0][:length]) or names[0]


def without_seeds(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Settings of a run without its two seeds."""
  data = {k: v for k, v in settings['data'].items() if k != 'seed'}
  return {k: v for k, v in settings.items() if k != 'seed'} | {'data': data}


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """Dotted keys of settings that are not the same in all, with each one's value."""
  flat = [dict(_leaves(s)) for s in settings]
  keys = list(dict.fromkeys(k for f in flat for k in f))
  values = {k: [f.get(k) for f in flat] for k in keys}
  return {k: v for k, v in values.items() if any(x != v[0] for x in v)}


def _leaves(settings: Mapping[str, Any], prefix: str = ''):
  for key, value in settings.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value
