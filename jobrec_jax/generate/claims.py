"""The language of true claims about a pair: what a reason may say, by perspective.

  ' story for ("A quiet library" with "Months of study"), skills met (6 of 10), mode unmet'

A claim names a field of the schema. Where the field has a verdict, it says this pair's verdict and
margin in the words of prompts; what is unknown is no reason. Of free text it quotes a span of the
record, letter by letter, and says whether that speaks for the job: this alone is a judgement, all
else is so or not. A preference reason quotes both sides, for one wants what the other offers; a
qualification reason quotes the candidate. Fields of text come first, then those with verdicts, in
the schema's order; a field is said once, and a reason has one claim at least and `MOST` at most.
No white space is optional.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import re
from typing import NamedTuple

from jobrec_jax.schema.align import align
from jobrec_jax.schema.comparators import Semantic
from jobrec_jax.schema.schema import Entity, Schema, Value

MOST = 3  # claims of a reason
SPANS, LENGTH = 12, 80  # spans of a field's texts that may be quoted, and letters of one
SIDES = ('for', 'against')
START = ' '  # as clauses stand in prompts: the tokens that the experts know begin so
_ENDS = re.compile(r'(?<=[.!?:;])\s+')


class Claim(NamedTuple):
  """A claim of a reason as it was read.

  Attributes:
    words: as they stand.
    field: the field of the schema that it names; '' where it names none.
    side: of text, 'for' or 'against', what it is said to speak; else ''.
    true: whether the records bear it out: field, verdict, margin, quotes.
    contradicts: whether it says 'met' of what is not met, or the other way round.
  """

  words: str
  field: str
  side: str
  true: bool
  contradicts: bool


@dataclasses.dataclass(frozen=True)
class Sayable:
  """What may be said of one field of a pair.

  Attributes:
    field: its name.
    words: the one claim, of a field with a verdict; '' of text.
    quotes: of text, the spans of each side that may be quoted, the candidate's first.
  """

  field: str
  words: str = ''
  quotes: tuple[tuple[str, ...], ...] = ()

  def claim(self, side: str = '', spans: Sequence[str] = ()) -> str:
    """The claim in words; of text, one side of `SIDES` and a span of each side's quotes."""
    if not self.quotes:
      return self.words
    return f'{self.field} {side} ({" with ".join(f"{chr(34)}{s}{chr(34)}" for s in spans)})'

  @property
  def pattern(self) -> str:
    """A regular expression of all claims on the field."""
    if not self.quotes:
      return escaped(self.words)
    quotes = ' with '.join(f'"(?:{"|".join(map(escaped, spans))})"' for spans in self.quotes)
    return rf'{escaped(self.field)} (?:for|against) \({quotes}\)'


def sayable(schema: Schema, candidate: Entity, job: Entity,
            perspective: str) -> tuple[Sayable, ...]:
  """What may be said of a pair under a perspective, in the order in which it is said."""
  texts, verdicts = [], []
  for found in align(schema, candidate, job).fields():
    field = found.field
    if not field.speaks_to(perspective):
      continue
    if isinstance(field.comparator, Semantic):
      quotes = (spans(candidate[name] for name in field.candidate),)
      if perspective == 'preference':
        quotes += (spans([job[field.job]]),)
      if all(quotes):
        texts.append(Sayable(field.name, quotes=quotes))
    elif found.verdict in ('met', 'unmet'):
      verdicts.append(Sayable(field.name, ' '.join(found.in_words().split())))
  return (*texts, *verdicts)


def spans(texts: Iterator[Value] | Sequence[Value]) -> tuple[str, ...]:
  """Sentences of texts that can be quoted whole, each once: letters of the record in their order.

  A long one ends at the last word within `LENGTH`. What opens a list, before a colon, is no
  sentence, and one with quotes of its own is left out.
  """
  found = {}
  for text in texts:
    for part in _ENDS.split(text.strip()) if isinstance(text, str) else ():
      if len(part) > LENGTH:
        part = part[:LENGTH + 1].rsplit(None, 1)[0][:LENGTH]
      if part and part[-1] != ':' and '"' not in part and part.isprintable():
        found[part.rstrip('.!?; ')] = None
  return tuple(found)[:SPANS]


def pattern(said: Sequence[Sayable], most: int = MOST) -> str:
  """A regular expression of all reasons; '' where nothing can be said."""
  parts = [s.pattern for s in said]

  def after(start: int, left: int) -> str:
    out = []
    for i in range(start, len(parts)):
      rest = after(i + 1, left - 1) if left > 1 else ''
      out.append(parts[i] + (f'(?:, (?:{rest}))?' if rest else ''))
    return '|'.join(out)
  return f'{START}(?:{after(0, most)})' if parts else ''


def pieces(said: Sequence[Sayable]) -> tuple[str, ...]:
  """Texts among which every three letters in a row of any reason are: its tokens are made of."""
  found = []
  for s in said:
    found.append(f', {s.words}, ' if s.words else f', {s.field} for (" {s.field} against ("')
    for side, spans in enumerate(s.quotes):
      before = ' with ' if side else ' ('
      after = (' with "',) if side + 1 < len(s.quotes) else ('), ',)
      found += [f'{before}"{span}"{end}' for span in spans for end in after]
  return tuple(found)


def reason(claims: Sequence[str]) -> str:
  """The text of claims, which stand in the order of `sayable`."""
  return START + ', '.join(claims)


def read(text: str, schema: Schema, said: Sequence[Sayable]) -> list[Claim]:
  """The claims of a text that anything wrote, judged by what is true of the pair.

  Args:
    text: a reason, or what was meant as one.
    schema: of the pair.
    said: what may be said of it.
  """
  true = {s.field: re.compile(s.pattern) for s in said}
  names = sorted((f.name for f in schema.fields), key=len, reverse=True)
  claims = []
  for words in clauses(text):
    field = next((n for n in names if words == n or words.startswith(f'{n} ')), '')
    first, *_ = [*words[len(field):].split(), '']
    right = field in true and true[field].fullmatch(words) is not None
    verdict = next((s.words for s in said if s.field == field and s.words), '')
    other = {'met': 'unmet', 'unmet': 'met'}.get(first)
    claims.append(Claim(words, field, first if first in SIDES else '', right,
                        bool(verdict) and other == verdict[len(field):].split()[0]))
  return claims


def clauses(text: str) -> list[str]:
  """A text at its commas that stand neither in quotes nor in brackets."""
  parts, depth, quoted = [''], 0, False
  for letter in text.strip():
    quoted ^= letter == '"'
    depth += 0 if quoted else (letter == '(') - (letter == ')')
    if letter == ',' and not quoted and depth <= 0:
      parts.append('')
    else:
      parts[-1] += letter
  return [p.strip() for p in parts if p.strip()]


def escaped(text: str) -> str:
  """The text as a regular expression of itself, for Python's and for Rust's."""
  return re.sub(r'([\\.+*?()|\[\]{}^$#&\-~])', r'\\\1', text)
