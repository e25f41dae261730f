"""A grammar for narratives, projects and small talk: every text is a row of sentence numbers.

The words are a domain's. A narrative states each taste of an entity in a few sentences and mixes in
sentences that say nothing of taste. A statement is plain ('I enjoy quick demos.') or turned: its
words are those of a statement of the opposite meaning in another order ('I like quick demos, not a
quiet library.'), so that a bag of words cannot tell which side is meant. Projects likewise: 'took
the error from 40 to 10 percent' has the words of 'took the error from 10 to 40 percent'.

  P(bag of words | taste, turned) = P(bag of words | turned)
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

Poles = tuple[tuple[str, ...], tuple[str, ...]]
SIDES = ('candidate', 'job')


class Style(NamedTuple):
  """How texts are told.

  Attributes:
    small_talk: sentences of a narrative that say nothing of taste.
    syntax: share of the statements and of the projects that are turned.
  """

  small_talk: int
  syntax: float


@dataclasses.dataclass(frozen=True)
class Axis:
  """One taste between two poles, in a candidate's words and in a job's.

  The two sides share few words on purpose: what fits must be learned, not matched.
  """

  candidate: Poles
  job: Poles


@dataclasses.dataclass(frozen=True)
class Voice:
  """How one side states a taste.

  Attributes:
    plain: of `{a}`, what is meant.
    single: of one phrase `{a}`, how it is affirmed and how it is denied, in the same words.
    double: of `{a}` and `{b}`, what is meant and what is denied.
  """

  plain: tuple[str, ...]
  single: tuple[tuple[str, str], ...]
  double: tuple[str, ...]


class Statement(NamedTuple):
  """What a row of a narrative's table says: on an axis, for the pole 0 or 1, turned or plain."""

  text: str
  axis: int
  pole: int
  turned: bool


@dataclasses.dataclass(frozen=True)
class Grammar:
  """The words of a domain.

  Attributes:
    axes: the tastes; each pole has at least M phrases on either side.
    lean: P(b) of b = 0 to M: how many of an axis's M statements speak for its first pole.
    voices: of a candidate and of a job.
    plain: of `{skill}`, how a piece of work went, by grade from poor to outstanding.
    turned: the same, where a grade's sentences have the words of its mirror's, one by one: of the
      poorest the words of the best.
    small_talk: sentences that say nothing of taste or ability, of a candidate and of a job: each
      joins one of the first halves and one of the second.
  """

  axes: tuple[Axis, ...]
  lean: tuple[float, ...]
  voices: tuple[Voice, Voice]
  plain: tuple[tuple[str, ...], ...]
  turned: tuple[tuple[str, ...], ...]
  small_talk: tuple[Poles, Poles]

  @property
  def statements(self) -> int:
    """M, the statements that a narrative makes on each axis."""
    return len(self.lean) - 1

  @functools.cached_property
  def small_talk_tables(self) -> dict[str, tuple[str, ...]]:
    return small_talk_tables(self.small_talk)

  @functools.cached_property
  def statement_tables(self) -> dict[str, tuple[Statement, ...]]:
    """Every statement of each side, axis by axis: plain, of a single phrase, of two."""
    tables = {}
    for side, voice in zip(SIDES, self.voices):
      table = []
      for k, axis in enumerate(self.axes):
        first, second = getattr(axis, side)
        phrases = [(a, 0) for a in first] + [(a, 1) for a in second]
        table += [Statement(sentence(form.format(a=a)), k, pole, False)
                  for form in voice.plain for a, pole in phrases]
        table += [Statement(sentence(form.format(a=a)), k, pole ^ denied, True)
                  for forms in voice.single for denied, form in enumerate(forms)
                  for a, pole in phrases]
        table += [Statement(sentence(form.format(a=(a, b)[pole], b=(b, a)[pole])), k, pole, True)
                  for form in voice.double for pole in (0, 1) for a in first for b in second]
      tables[side] = tuple(table)
    return tables

  @functools.cached_property
  def narrative_tables(self) -> dict[str, tuple[str, ...]]:
    """Of each side: small talk, then the statements."""
    return {side: (*self.small_talk_tables[side], *(s.text for s in self.statement_tables[side]))
            for side in SIDES}

  def leaning_of(self, side: str) -> dict[str, tuple[int, int]]:
    """Each sentence that states a taste: its axis, and the pole, 0 or 1, that it speaks for."""
    return {s.text: (s.axis, s.pole) for s in self.statement_tables[side]}

  def grade_of(self, skills: tuple[str, ...]) -> dict[str, int]:
    """Each sentence on a project: how well it went, 0 to 4."""
    grades = [grade for _, grade, _ in self.project_forms]
    return dict(zip(self.project_table(skills), grades * len(skills)))

  def draw_leanings(self, rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, axes] int: how many of M statements speak for the first pole of each axis."""
    return rng.choice(len(self.lean), size=(n, len(self.axes)), p=self.lean)

  def draw_narratives(self, rng: np.random.Generator, side: str, leanings: np.ndarray,
                      style: Style) -> np.ndarray:
    """Narratives that say what `leanings` are.

    Args:
      rng: picks forms, phrases and the order.
      side: 'candidate' or 'job'.
      leanings: [n, axes] as `draw_leanings` gives.
      style: how many sentences are small talk, what share of the statements is turned.

    Returns:
      [n, axes * M + small_talk] int32, rows of `narrative_tables[side]`.
    """
    n, chat = len(leanings), len(self.small_talk_tables[side])
    offset, sentences = chat, [rng.integers(chat, size=(n, style.small_talk))]
    for k in range(len(self.axes)):
      sentences.append(offset + self._draw_statements(rng, side, k, leanings[:, k], style.syntax))
      offset += sum(s.axis == k for s in self.statement_tables[side])
    body = np.concatenate(sentences, axis=1)
    order = np.argsort(rng.random(body.shape), axis=1)
    return np.take_along_axis(body, order, axis=1).astype(np.int32)

  def _draw_statements(self, rng: np.random.Generator, side: str, axis: int, leaning: np.ndarray,
                       syntax: float) -> np.ndarray:
    """[n, M] rows within an axis's part of the table; the first `leaning` [n] are for pole 0.

    Of a turned statement the phrases and the form are drawn whatever the pole, so that its words
    say nothing of it: the pole only decides how they are put.
    """
    voice = self.voices[SIDES.index(side)]
    first, second = map(len, getattr(self.axes[axis], side))
    both, shape = first + second, (len(leaning), self.statements)
    pole = (np.arange(self.statements) >= leaning[:, None]).astype(int)
    turned = rng.random(shape) < syntax
    # A phrase is said once: the first M of a random order of each pole's phrases.
    a, b = (np.argsort(rng.random((len(leaning), size)), axis=1)[:, :self.statements]
            for size in (first, second))
    plain = rng.integers(len(voice.plain), size=shape) * both + np.where(pole, first + b, a)
    singles, doubles = len(voice.single), len(voice.double)
    form, named = rng.integers(singles + doubles, size=shape), rng.integers(2, size=shape)
    single = (2 * form + (named ^ pole)) * both + np.where(named, first + b, a)
    double = ((2 * (form - singles) + pole) * first + a) * second + b
    start = len(voice.plain) * both
    turn = start + np.where(form < singles, single, 2 * singles * both + double)
    return np.where(turned, turn, plain)

  @property
  def project_forms(self) -> tuple[tuple[str, int, bool], ...]:
    """Template, grade and whether it is turned, of every form of a project."""
    return tuple((form, grade, turned) for turned, table in enumerate((self.plain, self.turned))
                 for grade, forms in enumerate(table) for form in forms)

  def project_table(self, skills: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for each skill and form, in this order."""
    return tuple(sentence(form.format(skill=s)) for s in skills
                 for form, _, _ in self.project_forms)

  def draw_projects(self, rng: np.random.Generator, skill: np.ndarray, grade: np.ndarray,
                    style: Style) -> np.ndarray:
    """[n, 1] int32, rows of `project_table`: what was done with `skill` [n], graded 0 to 4 [n]."""
    sizes = np.array([[len(forms) for forms in table] for table in (self.plain, self.turned)])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    turned = (rng.random(len(skill)) < style.syntax).astype(int)
    form = starts[turned * len(self.plain) + grade] + rng.integers(sizes[turned, grade])
    return (skill * starts[-1] + form).astype(np.int32)[:, None]


def small_talk_tables(halves: tuple[Poles, Poles]) -> dict[str, tuple[str, ...]]:
  """Of each side every sentence that joins one of the first halves and one of the second."""
  return {side: tuple(f'{a}, {b}.' for a in first for b in second)
          for side, (first, second) in zip(SIDES, halves)}


def sentence(words: str) -> str:
  """Words with a capital first letter and a full stop at the end."""
  return f'{words[0].upper()}{words[1:]}.'


def write(table: tuple[str, ...], rows: np.ndarray) -> list[str]:
  """The texts whose sentences are `rows` [n, sentences] of `table`."""
  return [' '.join([table[k] for k in row]) for row in rows.tolist()]
