"""Ranking jobs for many candidates: their file in shards, each made here or by a Dask worker.

  OUT            a line a candidate, in the order of their file; written when all rows are there
  OUT.parts/     until then: the candidates as JSON lines, whatever file they came from, and the
                 rows of a shard a file: a run that was killed goes on behind them

The name of a shard is a hash of all that its rows depend on: the run's artefacts, tau, top_k, the
catalogue, applications and the shard's own lines. A worker reads files itself, and refuses where it
finds others.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
from pathlib import Path
import time
from typing import Any

from absl import logging

from jobrec_jax.data.files.records import (
  entity_json,
  iter_records,
  parse_entity,
  read_entity_lines,
  read_records,
)
from jobrec_jax.data.files.tables import read_lines
from jobrec_jax.data.tables.applied import Applied, read_applied
from jobrec_jax.pipeline.artefacts import Catalogue, load_catalogue, load_policy
from jobrec_jax.pipeline.cluster import cancelling, check_workers, submit, trouble
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.load import PARTS, LoadedRun, find_parts, load, opened
from jobrec_jax.pipeline.provenance import versions
from jobrec_jax.pipeline.recommend_one import strangers, unread
from jobrec_jax.pipeline.stage import key_of
from jobrec_jax.recommend import RankedJobs
from jobrec_jax.schema.files import (
  decode_json,
  digest,
  expanded,
  null_for_nan,
  read_text,
  replacing,
)
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.words import printable
from jobrec_jax.scoring.shortlist import shortlist_size

SHARD = 256  # candidates; the shards decide roundings, so that they must not follow the workers


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for.

  Attributes:
    run, candidates: a run folder or a packed file, and the file of candidates.
    tau, top_k: as of `Recommender.recommend`; tau is None where there is no policy.
    catalogue, applied: files of jobs ('' for the run's own), and of applications to be left out.
    resolve: whether tau binds the mean over these candidates and this catalogue.
    requirement: what the policy is asked for; None for tau itself.
    retrieve: whether a shortlist is scored in full, not all jobs.
  """

  run: str
  candidates: str
  tau: float | None
  top_k: int = 5
  catalogue: str = ''
  applied: str = ''
  resolve: bool = False
  requirement: float | None = None
  retrieve: bool = False


@dataclasses.dataclass(frozen=True)
class Shard:
  """Candidates that are ranked together: a range of their file.

  Attributes:
    key: 'shard-0123456789abcdef'.
    start, stop: its first byte, and the one behind its last.
    line: its first line, from 1.
    count: of its candidates.
  """

  key: str
  start: int
  stop: int
  line: int
  count: int


def recommend_many(asked: Request, out: str | Path, size: int = SHARD, client: Any = None) -> int:
  """Writes the ranking of every candidate of a file.

  Each line of `out` is a JSON object: candidate, tau, eligibility (C of the whole list, null where
  no job is left), notes on the candidate, and jobs, each as a `recommend.Recommendation`; with
  `resolve` requirement, what the policy was asked for; with `retrieve` scored, as `RankedJobs` has.

  Args:
    asked: which run, candidates, requirement and catalogue.
    out: the file to write.
    size: candidates of a shard.
    client: a `distributed.Client`, or None for this process.

  Returns:
    How many candidates there are.

  Raises:
    ValueError: a file or a setting is wrong, before anything is ranked; or a shard failed: the same
      call goes on behind what the others made.
  """
  asked, out = _absolute(asked), expanded(out).absolute()
  if out.is_dir() or out.resolve() == Path(asked.candidates).resolve():
    raise ValueError(f'--out must be a file of its own, got {out}')
  folder = out.with_name(f'{out.name}.parts')
  try:
    asked = _prepared(asked, folder)
    basis = check_request(asked)
  except ValueError:
    _clear(folder, 'candidates.jsonl')
    raise
  shards = list(shards_of(asked, basis, size))
  missing = [s for s in shards if part_rows(folder, s) is None]
  total = sum(s.count for s in shards)
  logging.info('recommend: %d candidates in %d shards, %d of them to be made', total, len(shards),
               len(missing))
  progress = _Progress(total, sum(s.count for s in missing))
  if client is None:
    for shard in missing:
      make_shard(asked, basis, shard, folder)
      progress.done(shard)
  elif missing:
    _make_with_dask(client, (asked, basis, folder), missing, progress)
  with replacing(out) as file:
    for shard in shards:
      rows = part_rows(folder, shard)
      if rows is None:
        raise ValueError(f'{_part(folder, shard)}: must be what was made, got another content or '
                         'none; the same command makes it again')
      file.write(rows)
  _clear(folder, 'candidates.jsonl', 'shard-*.jsonl')  # of requests that were given up, too
  return total


def _clear(folder: Path, *patterns: str) -> None:
  """Removes these files, and the folder where nothing else lies there."""
  for pattern in patterns:
    for path in folder.glob(pattern):
      path.unlink(missing_ok=True)
  with contextlib.suppress(OSError):
    folder.rmdir()


def _absolute(asked: Request) -> Request:
  """With paths that hold in a worker, too, whose folder is another one."""
  paths = {name: value for name in ('run', 'candidates', 'catalogue', 'applied')
           if (value := getattr(asked, name))}
  return dataclasses.replace(asked, **{k: str(expanded(v).absolute())
                                       for k, v in paths.items()})


def _prepared(asked: Request, folder: Path) -> Request:
  """The request with candidates as JSON lines, all checked, and the requirement that it comes to.

  Raises:
    ValueError: a file or a setting is wrong; names file and line.
  """
  with opened(asked.run) as run:
    parts = find_parts(run)
    known = load_catalogue(parts.folders['catalogue'])
    if not asked.resolve:
      load_policy(parts.folders['policy'])[0].check(asked.tau)
  notes: list[str] = []
  count = 0
  with replacing(folder / 'candidates.jsonl') as file:
    for candidate in iter_records(asked.candidates, known.schema, 'candidate',
                                  known.sides.get('candidate'), notes):
      file.write(entity_json(candidate, known.schema, 'candidate') + '\n')
      count += 1
  jobs, applied, more = _outside(asked, known)
  for note in (*notes, *more):
    logging.warning('recommend: %s', printable(note))
  asked = dataclasses.replace(asked, candidates=str(folder / 'candidates.jsonl'))
  if not asked.resolve:
    return asked
  use_compilation_cache()
  people = [c for _, c in read_entity_lines(asked.candidates, known.schema, 'candidate')]
  without = applied and applied.of([c.id for c in people])
  requirement = load(asked.run).recommender.resolve(people, asked.tau, jobs, without)
  logging.info('recommend: a mean C of %.6g over %d candidates asks the policy for %.6g', asked.tau,
               count, requirement)
  return dataclasses.replace(asked, requirement=requirement)


def _outside(asked: Request, known: Catalogue) -> tuple[tuple[Entity, ...] | None, Applied | None,
                                                        list[str]]:
  """The jobs of the request's catalogue, its applications, and notes on both.

  Raises:
    ValueError: a file is wrong; names file and line.
  """
  jobs, notes, applied = None, [], None
  if asked.catalogue:
    jobs, said = read_records(asked.catalogue, known.schema, 'job', known.sides.get('job'))
    notes += said
  if asked.applied:
    applied = read_applied(asked.applied, known.log)
    if None in applied.jobs:
      raise ValueError(f'{asked.applied}: must have a column with ids of candidates where many are '
                       'ranked, got none')
    notes += strangers(applied, known.jobs if jobs is None else jobs, asked.applied)
  return jobs, applied, notes


def check_request(asked: Request) -> str:
  """What the ranking stands on, as a hash; starts no device.

  Raises:
    ValueError: the run is not whole, a file is missing, or the requirement lies beyond what the
      policy can be asked.
  """
  with opened(asked.run) as folder:
    parts = find_parts(folder)
    load_policy(parts.folders['policy'])[0].check(requirement(asked))
  settings = parts.record['settings']
  return key_of({'name': 'ranking', 'tau': asked.tau, 'requirement': asked.requirement,
                 'top_k': asked.top_k, 'retrieve': asked.retrieve,
                 'artefacts': {name: parts.record['artefacts'][name] for name in PARTS},
                 'settings': {name: settings[name] for name in ('features', 'mesh')},
                 'catalogue': digest(asked.catalogue) if asked.catalogue else None,
                 'applied': digest(asked.applied) if asked.applied else None,
                 'versions': versions()})


def requirement(asked: Request) -> float | None:
  """What the policy is asked for."""
  return asked.tau if asked.requirement is None else asked.requirement


def shards_of(asked: Request, basis: str, size: int) -> Iterator[Shard]:
  """The shards of a file of candidates as JSON lines."""
  count = sum(1 for _ in read_lines(asked.candidates))
  with Path(asked.candidates).open('rb') as file:
    for first in range(0, count, size):
      start, some = file.tell(), min(size, count - first)
      data = b''.join(file.readline() for _ in range(some))
      yield Shard(shard_key(basis, data), start, file.tell(), first + 1, some)


def shard_key(basis: str, data: bytes) -> str:
  """The name of the shard with these lines."""
  return key_of({'name': 'shard', 'basis': basis, 'lines': hashlib.sha256(data).hexdigest()})


def make_shard(asked: Request, basis: str, shard: Shard, folder: Path) -> None:
  """Ranks the candidates of a shard into its part file.

  Raises:
    ValueError: the files are no longer those that were asked about, or a score is not finite.
  """
  run, jobs, applied = _loaded(asked, basis)
  with Path(asked.candidates).open('rb') as file:
    file.seek(shard.start)
    data = file.read(shard.stop - shard.start)
  if shard_key(basis, data) != shard.key:
    raise ValueError(f'{asked.candidates}: must stay as it was while candidates are ranked, got '
                     'another content; start again')
  candidates = [parse_entity(decode_json(text), run.schema, 'candidate',
                             f'{asked.candidates}:{shard.line + i}')
                for i, text in enumerate(data.decode().removesuffix('\n').split('\n'))]
  without = applied and applied.of([c.id for c in candidates])
  shortlist = shortlist_size(len(jobs or run.jobs), asked.top_k) if asked.retrieve else None
  ranked = run.recommend(candidates, requirement(asked), asked.top_k, jobs, without, shortlist)
  warn(ranked, f'candidates {shard.line} to {shard.line + shard.count - 1}')
  rows = ''.join(row(c, r, asked) + '\n' for c, r in zip(candidates, ranked))
  with replacing(_part(folder, shard)) as file:
    file.write(hashlib.sha256(rows.encode()).hexdigest() + '\n' + rows)


def row(candidate: Entity, ranked: RankedJobs, asked: Request) -> str:
  """A line of the output."""
  more = {} if asked.requirement is None else {'requirement': asked.requirement}
  more |= {'scored': ranked.scored} if asked.retrieve else {}
  return json.dumps(null_for_nan({
      'candidate': candidate.id, 'tau': asked.tau, **more, 'eligibility': ranked.eligibility,
      'notes': ranked.notes, 'jobs': [dataclasses.asdict(job) for job in ranked.jobs]}),
      ensure_ascii=False, allow_nan=False)


def warn(ranked: Sequence[RankedJobs], place: str) -> None:
  """Says who has notes, and where texts were longer than what the experts read."""
  noted = sum(bool(r.notes) for r in ranked)
  if noted:
    logging.warning('%s: %d have notes, the first: %s', place, noted,
                    printable(next(r.notes[0] for r in ranked if r.notes)))
  for sentence in unread(r.unread for r in ranked):
    logging.warning('%s: %s', place, sentence)


def part_rows(folder: Path, shard: Shard) -> str | None:
  """The rows of a shard; None where they are not there as they were written."""
  path = _part(folder, shard)
  if not path.is_file():
    return None
  with contextlib.suppress(ValueError):
    head, _, rows = read_text(path).partition('\n')
    if hashlib.sha256(rows.encode()).hexdigest() == head:
      return rows
  return None


def _part(folder: Path, shard: Shard) -> Path:
  return folder / f'{shard.key}.jsonl'


@functools.lru_cache(maxsize=1)
def _loaded(asked: Request, basis: str) -> tuple[LoadedRun, tuple[Entity, ...] | None,
                                                 Applied | None]:
  """The run, the jobs and the applications of a request, read once in a process."""
  _check_same(asked, basis)
  use_compilation_cache()
  run = load(asked.run)
  return run, *_outside(asked, run.catalogue)[:2]


@functools.lru_cache(maxsize=1)
def _check_same(asked: Request, basis: str) -> None:
  """Raises ValueError: what this process finds is not what `basis` is a hash of."""
  found = check_request(asked)
  if found != basis:
    raise ValueError(f'{asked.run}: must be the run that was asked for, with the same catalogue '
                     f'and versions of packages ({basis}), got {found}')


def _make_with_dask(client: Any, work: tuple[Request, str, Path], missing: Sequence[Shard],
                    progress: '_Progress') -> None:
  """Raises ValueError: a worker cannot do what is asked, or a shard failed."""
  from distributed import as_completed  # here, for a run on one machine needs none
  asked, basis, folder = work
  plain = dataclasses.asdict(asked)
  check_workers(client, refusal, plain, basis, str(folder))
  place = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
  by_name = {f'{shard.key}-{place}': shard for shard in missing}
  futures: dict[str, Any] = {}
  with cancelling(client, futures):
    for name, shard in by_name.items():
      futures[name] = submit(client, make_in_worker, plain, basis, dataclasses.asdict(shard),
                             str(folder), key=name)
    for future in as_completed(futures.values()):
      shard = by_name[future.key]
      if message := trouble(future) or future.result():
        raise ValueError(f'the shard that begins with candidate {shard.line} failed: {message}')
      progress.done(shard)


def make_in_worker(asked: Mapping[str, Any], basis: str, shard: Mapping[str, Any],
                   folder: str) -> str | None:
  """`make_shard` on a worker, from plain values: None where it is there, else what went wrong."""
  if why := refusal(asked, basis, folder):
    return why
  try:
    make_shard(Request(**asked), basis, Shard(**shard), Path(folder))
  except ValueError as error:
    return ' '.join(str(error).split())
  return None


def refusal(asked: Mapping[str, Any], basis: str, folder: str) -> str | None:
  """Why this process cannot rank for another one; None where it can."""
  for path in (folder, asked['run'], asked['candidates']):
    if not Path(path).exists():
      return f'{path}: must be seen by every worker, got nothing there'
  try:
    _check_same(Request(**asked), basis)
  except (TypeError, ValueError) as error:
    return f'{error}; all workers must run the same commit on the same files'
  return None


class _Progress:
  """Logs how many candidates are done, at which rate, and when the others may be."""

  def __init__(self, total: int, missing: int):
    self._total, self._before, self._done = total, total - missing, 0
    self._start = time.monotonic()

  def done(self, shard: Shard) -> None:
    self._done += shard.count
    rate = self._done / max(time.monotonic() - self._start, 1e-9)
    ready = self._before + self._done
    logging.info('recommend: %d of %d candidates, %.3g a second, about %s left', ready,
                 self._total, rate,
                 datetime.timedelta(seconds=round((self._total - ready) / rate)))
