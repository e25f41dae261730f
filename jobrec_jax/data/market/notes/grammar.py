"""The first grammar: fragments, some of them contrasts ('A quiet library. Not quick demos.').

Most statements are a phrase alone, so that a bag of words reads most tastes.
"""

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from jobrec_jax.data.market.grammar import SIDES, Axis, Poles, Style, sentence, small_talk_tables


@dataclasses.dataclass(frozen=True)
class Grammar:
  """The words of a domain.

  Attributes:
    axes: the tastes.
    lean: P(b) of b = 0 to M: how many of an axis's M statements speak for its first pole.
    contrasts: share of the statements that also name, and deny, the other pole.
    openings: how a narrative begins, of a candidate and of a job.
    contrast: of `{a}` and `{b}`, what is meant and what is denied.
    outcomes: how a piece of work went, from poor to outstanding, in several words each.
    project: of `{skill}` and `{outcome}`.
    small_talk: sentences that say nothing of taste or ability, of a candidate and of a job: each
      joins one of the first halves and one of the second.
  """

  axes: tuple[Axis, ...]
  lean: tuple[float, ...]
  contrasts: float
  openings: Poles
  contrast: str
  outcomes: tuple[tuple[str, ...], ...]
  project: str
  small_talk: tuple[Poles, Poles]

  @property
  def statements(self) -> int:
    """M, the statements that a narrative makes on each axis."""
    return len(self.lean) - 1

  @functools.cached_property
  def small_talk_tables(self) -> dict[str, tuple[str, ...]]:
    return small_talk_tables(self.small_talk)

  @functools.cached_property
  def narrative_tables(self) -> dict[str, tuple[str, ...]]:
    """Of each side: openings, small talk, then each axis's plain statements and contrasts."""
    tables = {}
    for side, openings in zip(SIDES, self.openings):
      table = [*openings, *self.small_talk_tables[side]]
      for axis in self.axes:
        poles = getattr(axis, side)
        for meant, denied in (poles, poles[::-1]):
          table += [sentence(a) for a in meant]
          table += [sentence(self.contrast.format(a=a, b=b)) for a in meant for b in denied]
      tables[side] = tuple(table)
    return tables

  def leaning_of(self, side: str) -> dict[str, tuple[int, int]]:
    """Each sentence that states a taste: its axis, and the pole, 0 or 1, that it speaks for."""
    table = self.narrative_tables[side]
    at = len(self.openings[SIDES.index(side)]) + len(self.small_talk_tables[side])
    found = {}
    for k, axis in enumerate(self.axes):
      sizes = [len(pole) for pole in getattr(axis, side)]
      for pole in (0, 1):
        rows = sizes[pole] * (1 + sizes[1 - pole])
        found |= dict.fromkeys(table[at:at + rows], (k, pole))
        at += rows
    return found

  def grade_of(self, skills: tuple[str, ...]) -> dict[str, int]:
    """Each sentence on a project: how well it went, 0 to 4."""
    grades = [g for g, words in enumerate(self.outcomes) for _ in words]
    return dict(zip(self.project_table(skills), grades * len(skills)))

  def draw_leanings(self, rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, axes] int: how many of M statements speak for the first pole of each axis."""
    return rng.choice(len(self.lean), size=(n, len(self.axes)), p=self.lean)

  def draw_narratives(self, rng: np.random.Generator, side: str, leanings: np.ndarray,
                      style: Style) -> np.ndarray:
    """Narratives that say what `leanings` are.

    Args:
      rng: picks openings, phrases, contrasts and the order.
      side: 'candidate' or 'job'.
      leanings: [n, axes] as `draw_leanings` gives.
      style: how they are told; the share of `syntax` is this grammar's own.

    Returns:
      [n, 1 + axes * M + small_talk] int32, rows of `narrative_tables[side]`.
    """
    n = len(leanings)
    openings, chat = len(self.openings[SIDES.index(side)]), len(self.small_talk_tables[side])
    offset = openings + chat
    sentences = []
    for a, axis in enumerate(self.axes):
      sizes = [len(pole) for pole in getattr(axis, side)]
      sentences.append(offset + self._draw_statements(rng, sizes, leanings[:, a]))
      offset += sizes[0] + sizes[1] + 2 * sizes[0] * sizes[1]
    sentences.append(openings + rng.integers(chat, size=(n, style.small_talk)))
    body = np.concatenate(sentences, axis=1)
    body = np.take_along_axis(body, np.argsort(rng.random(body.shape), axis=1), axis=1)
    return np.concatenate([rng.integers(openings, size=(n, 1)), body], axis=1).astype(np.int32)

  def _draw_statements(self, rng: np.random.Generator, sizes: Sequence[int],
                       leaning: np.ndarray) -> np.ndarray:
    """[n, M] rows within an axis's part of the table, whose poles have `sizes` phrases.

    The part holds for each pole its plain statements, then its contrasts, by what is meant and
    what is denied. The first `leaning` [n] of M statements speak for the first pole.
    """
    shape = len(leaning), self.statements
    first = np.arange(self.statements) < leaning[:, None]
    # A phrase is said once: the first M of a random order of each pole's phrases.
    order = [np.argsort(rng.random((len(leaning), size)), axis=1)[:, :self.statements]
             for size in sizes]
    meant = np.where(first, order[0], order[1])
    contrast = rng.random(shape) < self.contrasts
    denied = np.where(first, rng.integers(sizes[1], size=shape), rng.integers(sizes[0], size=shape))
    own, other = np.where(first, sizes[0], sizes[1]), np.where(first, sizes[1], sizes[0])
    rows_of_first = sizes[0] + sizes[0] * sizes[1]
    within_pole = np.where(contrast, own + meant * other + denied, meant)
    return np.where(first, 0, rows_of_first) + within_pole

  def project_table(self, skills: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for each skill and outcome, in this order."""
    outcomes = [o for grade in self.outcomes for o in grade]
    return tuple(self.project.format(skill=s, outcome=o) for s in skills for o in outcomes)

  def draw_projects(self, rng: np.random.Generator, skill: np.ndarray, grade: np.ndarray,
                    style: Style) -> np.ndarray:
    """[n, 1] int32, rows of `project_table`: what was done with `skill` [n], graded 0 to 4 [n]."""
    del style  # the outcome's words tell the grade
    sizes = np.array([len(words) for words in self.outcomes])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    outcome = starts[grade] + rng.integers(sizes[grade])
    return (skill * starts[-1] + outcome).astype(np.int32)[:, None]
