"""How columns of a foreign table of interactions say what was decided, when, and in which split."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
import datetime
from typing import Any, NamedTuple

from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.files.tables import parse_scalar
from jobrec_jax.data.tables import hints
from jobrec_jax.data.tables.cells import id_of, truth
from jobrec_jax.data.tables.roles import Roles, Sheet

_NONE = frozenset(('', 'na', 'n/a', 'nan', 'null', 'none'))  # no decision, in a cell of a label
_FEW = 12  # a column of stages, ratings or answers has no more words


class Line(NamedTuple):
  """A line of a schema file.

  Attributes:
    key: what stands before the sign.
    value: what stands behind it.
    note: a comment.
    sure: False for a line that is only proposed, as a comment.
  """

  key: str
  value: Any
  note: str = ''
  sure: bool = True


def decisions(roles: Roles) -> list[Line]:
  """The lines of `[tables.interactions]` behind file and ids.

  None of the keys preference, qualification and funnel is sure where no column tells a decision.
  """
  log = roles.log
  seen = {c: words for c, words in log.ids.items()
          if c not in (roles.candidate.column, roles.job.column)}
  split, used = _split(log, seen)
  left = {c: w for c, w in seen.items() if c not in used}
  lines = [*_decided(left), *split]
  if not any(line.sure and line.key in ('preference', 'qualification', 'funnel') for line in lines):
    lines.insert(0, Line('preference', {'column': 'COLUMN', 'yes': ['WORD'], 'no': ['WORD']},
                         'no column tells who wanted what: name one, or true where every row is '
                         'an application; and qualification where employers decided', False))
  strangers = _strangers(roles)
  if strangers:
    lines.append(Line('unknown', 'skip', f'{strangers} rows name an id that no other table has'))
  return lines


def _strangers(roles: Roles) -> int:
  known = [roles.candidate.sheet.ids[roles.candidate.id], roles.job.sheet.ids[roles.job.id]]
  pairs = zip(*(roles.log.columns[s.column] for s in (roles.candidate, roles.job)))
  return sum(id_of(one) not in known[0] or id_of(other) not in known[1] for one, other in pairs)


def _words(seen: Counter) -> dict[str, str]:
  """Words of a column by what they are without case and accents; without those of no decision."""
  return {w.strip(): hints.plain(w.strip()) for w in seen if w.strip().casefold() not in _NONE}


def _decided(left: dict[str, Counter]) -> list[Line]:
  """Labels and the funnel."""
  answers = {c: _answers(w) for c, w in left.items()}
  answers = {c: a for c, a in answers.items() if a}
  named = {}
  for key, says in (('shown', hints.SHOWN), ('qualification', hints.QUALIFICATION),
                    ('preference', hints.PREFERENCE)):
    column = next((c for c in answers if c not in named.values() and hints.says(c, says)), None)
    if column:
      named[key] = column
  funnel = None if {'preference', 'qualification'} <= named.keys() else _funnel(left)
  lines = []
  if funnel:
    lines = [funnel]
    named = {k: c for k, c in named.items() if k == 'shown'}
  else:
    lines += _rating(left) if 'preference' not in named else []
    for key in ('preference', 'qualification'):
      column = next((c for c in answers if c not in named.values() and len(_words(left[c])) > 1),
                    None)
      if key not in named and column and not any(line.key == key for line in lines):
        named[key] = column
        answers[column]['note'] = 'by its place alone: check whose decision it is'
  for key in ('preference', 'qualification', 'shown'):
    if key in named:
      note = answers[named[key]].pop('note', '')
      lines.append(Line(key, {'column': named[key], **answers[named[key]]}, note))
  spare = [c for c in answers if c not in named.values() and not (
      funnel and c == funnel.value['column'])]
  if spare:
    lines.append(Line('preference', spare[0], f'also yes and no: {", ".join(spare)}', False))
  if 'preference' in named and 'qualification' in named:
    lines.append(Line('applicants_only', ['train', 'validation', 'calibration'],
                      'hides what employers said of those who did not want the job', False))
  return lines + _exposure(left)


def _answers(seen: Counter) -> dict[str, Any]:
  """The words of yes and of no, {'yes': [], 'no': []} for the usual ones; {} for no such column."""
  words = _words(seen)
  if not words or len(words) > _FEW:
    return {}
  if all(truth(w) is not None for w in words):
    return {'yes': [], 'no': []}
  yes = [w for w, p in words.items() if p in hints.YES]
  no = [w for w, p in words.items() if p in hints.NO]
  if not (yes and no):
    yes = [w for w in words if _rank(w) not in (None, hints.REJECTED)]
    no = [w for w in words if _rank(w) == hints.REJECTED]
    if len({_rank(w) for w in yes}) > 1:
      return {}
  return {'yes': yes, 'no': no} if yes and no and len(yes) + len(no) == len(words) else {}


def _rank(word: str) -> int | None:
  """How far in a funnel a word stands; the last that it names, for 'interview accepted'."""
  return next((i for i in reversed(range(len(hints.STAGES))) if hints.says(word, hints.STAGES[i])),
              None)


def _funnel(left: dict[str, Counter]) -> Line | None:
  """The column with the stages that pairs reached."""
  for column, seen in left.items():
    words = {w.strip() for w in seen}
    ranks = {w: _rank(w) for w in words}
    known = [r for r in ranks.values() if r is not None]
    if len(words) > _FEW or len(set(known)) < 2 or len(known) < len(words) / 2:
      continue
    stages = sorted(words, key=lambda w: (-1 if ranks[w] is None else ranks[w], -seen[w], w))
    chosen = [w for w in stages if (ranks[w] or 0) >= hints.APPLIED] or stages[-1:]
    behind = [w for w in chosen[1:] if ranks[w] != hints.REJECTED]
    value = {'column': column, 'stages': stages, 'preference': chosen[0]}
    if behind:
      value['qualification'] = next((w for w in behind if ranks[w] >= hints.OFFERED), behind[-1])
    rejected = any(ranks[w] == hints.REJECTED for w in words)
    if '' in words and ranks[chosen[0]] == hints.REJECTED:
      continue  # an answer that is not known yet: no stage
    if behind and rejected:
      pending = [w for w in chosen[:chosen.index(value['qualification'])]
                 if ranks[w] != hints.REJECTED]
      value |= {'pending': pending} if pending else {}
    note = 'check the order'
    strange = [w for w in stages if ranks[w] is None]
    if strange:
      note += f', and where {strange} belong'
    if ranks[chosen[0]] == hints.REJECTED:
      note += '; every row is taken for an application'
    elif behind and not rejected:
      note += '; pending = [...] names stages where nobody has decided yet'
    return Line('funnel', value, note)
  return None


def _rating(left: dict[str, Counter]) -> list[Line]:
  for column, seen in left.items():
    numbers = {w: parse_scalar('number', w) for w in _words(seen)}
    if hints.says(column, hints.RATING) and 1 < len(numbers) <= _FEW and None not in (
        numbers.values()):
      middle = (min(numbers.values()) + max(numbers.values())) / 2
      words = sorted(numbers, key=numbers.__getitem__)
      return [Line('preference', {
          'column': column, 'yes': [w for w in words if numbers[w] > middle],
          'no': [w for w in words if numbers[w] <= middle]}, 'from which rating on is it yes?')]
  return []


def _exposure(left: dict[str, Counter]) -> list[Line]:
  for column, seen in left.items():
    values = [parse_scalar('number', w.strip()) for w in seen]
    if hints.says(column, hints.EXPOSURE) and all(v is not None and 0 < v <= 1 for v in values):
      return [Line('exposure', column, 'the probability with which a pair was shown')]
  return []


def _split(log: Sheet, seen: dict[str, Counter]) -> tuple[list[Line], set[str]]:
  """How rows are divided, and the columns that say so."""
  folds = [c for c, w in seen.items() if {x.strip() for x in w} <= set(SPLITS) and len(w) > 1]
  times = [c for c in seen if _is_time(c, log.columns[c])]
  groups = [c for c, w in seen.items() if hints.says(c, hints.GROUP) and '' not in w
            and 2 < len(w) < 0.5 * log.rows]
  late = [c for c in seen if c not in times and hints.says(c, hints.TIME)
          and _all(log.columns[c], _looks_like_a_day)]
  if folds:
    lines = [Line('split', 'column'), Line('fold', folds[0], 'holds the names of splits')]
  else:
    lines = [Line('split', 'candidates', "divides people; or 'time', 'group', 'column'")]
  if times:
    lines.append(Line('time', times[0], "with split = 'time' the latest rows are the test",
                      False))
  for column in late:
    lines.append(Line('time', column, 'times must be ISO dates, such as 2025-01-31', False))
  for column in groups:
    lines.append(Line('group', column, "with split = 'group' its rows stay together", False))
  return lines, {*folds, *times, *late}


def _all(cells: Sequence[Any] | Collection[Any], fits: Callable[[Any], bool]) -> bool:
  return bool(cells) and all(map(fits, cells))


def _is_time(column: str, cells: Sequence[Any]) -> bool:
  return _all(cells, _is_iso) or (hints.says(column, hints.TIME) and _all(
      cells, lambda c: _is_iso(c) or parse_scalar('number', str(c).strip()) is not None))


def _is_iso(cell: Any) -> bool:
  if isinstance(cell, datetime.date):
    return True
  try:
    datetime.datetime.fromisoformat(cell.strip())
  except (AttributeError, ValueError):
    return False
  return not cell.strip().isdigit()  # 20250131 is a number, too


def _looks_like_a_day(cell: Any) -> bool:
  return isinstance(cell, str) and any(c.isdigit() for c in cell)
