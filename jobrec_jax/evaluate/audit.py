"""The audit, run on every data set before training: what splits share, what records and lists hold.

It finds what would make figures on the data mean something else than they say: rows or records in
two splits, ids in texts, values that cannot be, lists that give their answers away (`canaries`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
import dataclasses
import itertools
from typing import Literal

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions, pair_code
from jobrec_jax.evaluate.canaries import CENTRES, judge_canaries, labelled
from jobrec_jax.evaluate.named_ids import named_ids
from jobrec_jax.schema.copies import grouped, record_keys
from jobrec_jax.schema.schema import PERSPECTIVES, Entity, Schema
from jobrec_jax.schema.unmatched import unmatched_words

SIDES = ('candidate', 'job')
_NAMED = 5  # words and groups of copies that a finding names, the most frequent ones


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing the audit measured.

  Attributes:
    name: 'check/where', e.g. 'shared_negatives/preference/train-test'.
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

  @property
  def check(self) -> str:
    return self.name.partition('/')[0]

  @property
  def where(self) -> str:
    return self.name.partition('/')[2]

  def is_known(self, known: Iterable[str]) -> bool:
    """Whether `known` holds the name, or leading parts of it (parts end at '/' or '.')."""
    return any(f'{self.name}/'.startswith((f'{k}/', f'{k}.')) for k in known)


@dataclasses.dataclass(frozen=True)
class AuditReport:
  """All findings of an audit, check by check."""

  findings: tuple[Finding, ...]

  @property
  def rows(self) -> list[dict]:
    return [dataclasses.asdict(f) for f in self.findings]

  def failed(self, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the errors that `known` does not name, in full or by leading parts of the name."""
    known = tuple(known)
    return tuple(f.name for f in self.findings if f.severity == 'error' and not f.is_known(known))

  def verdict(self, known: Iterable[str] = ()) -> str:
    """The outcome in one line: errors by check, and apart from them those that `known` names."""
    failed = self.failed(known)
    checks = (Counter(name.split('/')[0] for name in names)
              for names in (failed, set(self.failed()) - set(failed)))
    errors, tolerated = (', '.join(f'{check} ({n})' for check, n in sorted(c.items()))
                         for c in checks)
    return ((f'{len(failed)} error{"s" * (len(failed) > 1)}: {errors}' if failed else 'no errors')
            + (f'; known faults: {tolerated}' if tolerated else ''))

  def table(self, known: Iterable[str] = ()) -> str:
    """The findings by check, errors first, then the MRR of all canaries by place.

    Severity is 'known' for errors that `known` names. Remarks of a check that read alike share a
    line. Of the canaries only leaks are findings to be read one by one.
    """
    known, lines = tuple(known), []
    findings = [f for f in self.findings if f.severity == 'error' or f.p_value is None]
    for check in dict.fromkeys(f.check for f in findings):
      found = sorted((f for f in findings if f.check == check), key=lambda f: f.severity != 'error')
      alike = Counter(f.text for f in found if f.severity == 'info')
      for f in found:
        same = 1 if f.severity == 'error' else alike.pop(f.text, 0)
        if same:
          where = f.where if same == 1 else 'all ' * (same == len(found)) + f'{same} places'
          severity = 'known' if f.severity == 'error' and f.is_known(known) else f.severity
          lines.append((severity, check, where, f.text))
    tables = [_aligned(lines), _aligned(self._canary_lines())]
    return '\n\n'.join(filter(None, tables))

  def _canary_lines(self) -> list[tuple[str, ...]]:
    """A header, and for each place its chance MRR and each canary's; a star marks a leak."""
    judged = [f for f in self.findings if f.p_value is not None]
    names = list(dict.fromkeys(f.check for f in judged))
    lines = [('MRR at', 'chance', *names)] if judged else []
    for where in dict.fromkeys(f.where for f in judged):
      here = {f.check: f for f in judged if f.where == where}
      cells = (f'{f.value:.4f}{"*" if f.severity == "error" else ""}' if (f := here.get(n)) else '–'
               for n in names)
      lines.append((where, f'{next(iter(here.values())).chance:.4f}', *cells))
    return lines


def _aligned(lines: list[tuple[str, ...]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join('  '.join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _finding(name: str, count: int, text: str) -> Finding:
  """An error where there is anything to count."""
  return Finding(name, 'error' if count else 'info', count, text)


def _ids(log: Interactions, side: str, split: str) -> np.ndarray:
  return np.unique(getattr(log, side)[log.split == SPLITS.index(split)])


def _overlaps(log: Interactions, split_pairs: list[tuple[str, str]]) -> Iterator[Finding]:
  """What two splits share. One pair labelled twice for a perspective is an error."""
  def shared(ids, keep=slice(None)):
    index = np.unique(ids[keep], return_inverse=True)[1]
    held = np.zeros((index.max(initial=-1) + 1, len(SPLITS)), np.int64)
    held[index, log.split[keep]] = 1
    return held.T @ held  # [4, 4] ids in both

  labels, pairs = {p: getattr(log, p) for p in PERSPECTIVES}, pair_code(log.candidate, log.job)
  errors = {f'shared_negatives/{p}': ('negatives', shared(pairs, y == 0))
            for p, y in labels.items()}
  errors |= {f'pair_overlap/{p}': ('pairs', shared(pairs, y != UNOBSERVED))
             for p, y in labels.items()}
  remarks = {f'{what}_overlap/any': (f'{what}s', shared(ids)) for what, ids in
             (('pair', pairs), ('candidate', log.candidate), ('job', log.job))}
  for name, (what, counts) in (errors | remarks).items():
    for first, second in split_pairs:
      n = int(counts[SPLITS.index(first), SPLITS.index(second)])
      found = _finding(f'{name}/{first}-{second}', n, f'{n:,} {what} in both')
      yield found if name in errors else dataclasses.replace(found, severity='info')


def _duplicates(dataset: Dataset, side: str, entities: tuple[Entity, ...],
                split_pairs: list[tuple[str, str]]) -> Iterator[Finding]:
  """Records equal in all attributes; an error where they make a record of another split known.

  That takes equal texts: records of a few numbers and categories may be equal by coincidence.
  """
  keys = record_keys(dataset.schema, side, entities)
  groups = sorted(grouped(keys), key=len, reverse=True)
  n, blank = sum(map(len, groups)), int((keys < 0).sum())
  yield Finding(f'blank_records/{side}', 'info', blank,
                f'{blank} of {len(keys)} {side}s have no attribute')
  named = '; '.join(_group([entities[i].id for i in rows]) for rows in groups[:_NAMED])
  yield Finding(f'duplicates/{side}', 'info', n,
                f'{n} of {len(keys) - blank} {side}s equal another one in every attribute'
                + (f' (groups: {len(groups)}): {named}' if n else ''))
  texts = [a.name for a in dataset.schema.attributes(side) if a.kind == 'text']
  with_text = np.asarray([any(e[t] for t in texts) for e in entities], bool)
  for first, second in split_pairs:
    old, new = (_ids(dataset.interactions, side, split) for split in (first, second))
    new = np.setdiff1d(new, old)
    new = new[with_text[new]]
    n = int(np.isin(keys[new], keys[old]).sum())
    yield _finding(f'duplicates/{side}/{first}-{second}', n,
                   f'{n} {side}s of the second alone equal one of the first, texts included')
  old, new = (_ids(dataset.interactions, side, split) for split in ('train', 'test'))
  for name in texts:
    known = {entities[i][name] for i in old}
    fresh = [text for i in np.setdiff1d(new, old) if (text := entities[i][name])]
    if fresh:
      n = sum(text in known for text in fresh)
      yield Finding(f'duplicate_text/{side}/{name}', 'info', n,
                    f'{n} of {len(fresh)} test {side}s new to train have a text found in train')


def _group(ids: list[str]) -> str:
  """'4 are 'a', 'b', 'c' and 1 more'."""
  more = len(ids) - 3
  return f'{len(ids)} are ' + ', '.join(map(repr, ids[:3])) + (f' and {more} more' * (more > 0))


def _problem(schema: Schema, side: str, entity: Entity) -> str | None:
  """What cannot be true of a record, in words, or None: the place for rules across attributes."""
  try:
    schema.validate(side, entity)
  except ValueError as error:
    return str(error)
  if not entity.id:
    return f'a {side} has an empty id'
  for attribute in schema.attributes(side):
    if attribute.required and entity[attribute.name] in ('', ()):
      return f'{side} {entity.id!r}: {attribute.name} is required and empty'
  return None


def _impossible_records(schema: Schema, side: str, entities: tuple[Entity, ...]) -> Finding:
  uses = Counter(e.id for e in entities)
  problems = [p for e in entities if (p := _problem(schema, side, e) or (
      f'{side} {e.id!r}: id must be unique, got it {uses[e.id]} times' if uses[e.id] > 1 else ''))]
  return _finding(f'impossible/{side}', len(problems), f'{len(problems)} of {len(entities)} {side}s'
                  + (f', the first: {problems[0]}' if problems else ''))


def _impossible_rows(dataset: Dataset) -> tuple[np.ndarray, Finding]:
  """[N] bool, rows whose values lie in their ranges, and the finding on the others."""
  log, good = dataset.interactions, {}
  for side, entities in zip(SIDES, (dataset.candidates, dataset.jobs)):
    good[side] = (getattr(log, side) >= 0) & (getattr(log, side) < len(entities))
  good |= {p: np.isin(getattr(log, p), (UNOBSERVED, 0, 1)) for p in PERSPECTIVES}
  good['split'] = (log.split >= 0) & (log.split < len(SPLITS))
  good['exposure'] = (log.exposure > 0) & (log.exposure <= 1)
  fine = np.all(list(good.values()), axis=0)
  text = f'{(~fine).sum()} of {len(log)} rows'
  if not fine.all():
    row = int(fine.argmin())
    field = next(name for name, ok in good.items() if not ok[row])
    text += (f', the first: {field} is {getattr(log, field)[row]} in row {row}; '
             'no other check counts them')
  return fine, _finding('impossible/log', int((~fine).sum()), text)


def _ids_in_text(dataset: Dataset) -> Iterator[Finding]:
  """Records that name ids: an error where they name those that tell, more often than chance."""
  sizes = {'candidate': len(dataset.candidates), 'job': len(dataset.jobs)}
  for side, found in named_ids(dataset).items():
    text = f'{found.records} of {sizes[side]} {side}s name an id'
    if found.records:
      own, pair = found.own, found.pair
      text += (f', the first: {found.first}; {own.count} their own ({own.chance:.2g} by chance), '
               f'{pair.count} one of a pair in the log ({pair.chance:.2g} by chance)')
    leaks = found.own.leaks or found.pair.leaks
    yield Finding(f'ids_in_text/{side}', 'error' if leaks else 'info', found.records, text)


def _unmatched(dataset: Dataset) -> Iterator[Finding]:
  """Words of aligned fields that meet none of the other side's: in other words, or not there."""
  others = dict(zip(SIDES, SIDES[::-1]))
  for field in unmatched_words(dataset.schema, dataset.candidates, dataset.jobs):
    uses = sum(word.uses for word in field.words)
    text = (f'{len(field.words)} of {field.distinct} words ({uses:,} of {field.uses:,} uses) meet '
            f"no {others[field.side]}'s")
    named = ', '.join(f'{word.written!r} ({word.uses})' for word in field.words[:_NAMED])
    yield Finding(f'unmatched/{field.field}/{field.side}', 'info', len(field.words),
                  text + (f', most used: {named}' if named else ''))


def _balance(name: str, centre: np.ndarray, label: np.ndarray) -> Finding:
  """The share of positives, in all and by list; `centre` says whose list a row is in."""
  sizes = np.bincount(centre)
  share = np.bincount(centre, label)[sizes > 0] / sizes[sizes > 0]
  alone = int(np.isin(share, (0, 1)).sum())
  return Finding(name, 'info', float(label.mean()),
                 f'{label.sum(dtype=int):,} of {len(label):,} labels are positive; by list '
                 f'{share.mean():.3f}, from {share.min():.3f} to {share.max():.3f}; '
                 f'{alone} of {len(share)} lists hold one class alone')


def audit(dataset: Dataset, seed: int = 0) -> AuditReport:
  """Measures what splits share, what records give away, label balance, and the leak canaries.

  Errors: labelled pairs and negatives in two splits, a pair twice in one, a record of one split
  that copies one of an earlier split word for word, values outside the schema or the log's ranges,
  texts that name their own id or a pair's more often than chance (`named_ids`), and canaries that
  beat chance (`canaries.judge_canaries`). All else is remarked: overlaps of candidates and jobs,
  copies, repeated texts, blank records, words that meet none of the other side's, label balance.

  Args:
    dataset: any data set.
    seed: of the random canary.

  Returns:
    The findings.
  """
  fine, impossible_log = _impossible_rows(dataset)
  dataset = dataclasses.replace(dataset, interactions=dataset.interactions.where(fine))
  log = dataset.interactions
  sides = tuple(zip(SIDES, (dataset.candidates, dataset.jobs)))
  split_pairs = list(itertools.combinations(
      [split for i, split in enumerate(SPLITS) if (log.split == i).any()], 2))

  found = list(_overlaps(log, split_pairs))
  codes = pair_code(log.candidate, log.job) * len(SPLITS) + log.split
  repeated = len(log) - len(np.unique(codes))
  found.append(_finding('duplicates/pair', repeated,
                        f'{repeated} rows repeat a pair of their own split'))
  for side, entities in sides:
    found += _duplicates(dataset, side, entities, split_pairs)
  found += [impossible_log, *(_impossible_records(dataset.schema, *x) for x in sides)]
  found += _unmatched(dataset)
  found += _ids_in_text(dataset)
  found += [_balance(f'label_balance/{perspective}/{place}', getattr(rows, CENTRES[perspective]),
                     getattr(rows, perspective))
            for (perspective, place), rows in labelled(log).items()]
  judged, unplaced = judge_canaries(dataset, seed)
  found += [Finding(f'position_in_list/{where}', 'info', n,
                    'not judged: every list stands in the order of the entities')
            for where, n in unplaced.items()]
  found += [Finding(c.name, 'error' if c.leaks else 'info', c.mrr,
                    f'MRR {c.mrr:.4f}, chance {c.chance:.4f}, {c.lists:4} lists, '
                    f'p <= {c.p_value:.2g}', c.chance, c.p_value) for c in judged]
  # Checks in the order of their first finding, so that reports need not sort.
  order = list(dict.fromkeys(f.check for f in found))
  return AuditReport(tuple(sorted(found, key=lambda f: order.index(f.check))))
