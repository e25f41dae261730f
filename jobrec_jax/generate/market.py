"""Reasons of a simulated market: each pair's true causes, in words that quote what shows them."""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from jobrec_jax.data.market.causes import Causes, Explained
from jobrec_jax.generate.causes import reason_of, telling
from jobrec_jax.generate.claims import MOST, Sayable, spans


class MarketReasons:
  """Writes why pairs of a market are as they are.

  Args:
    explained: the market.
  """

  def __init__(self, explained: Explained):
    self._explained = explained

  @functools.cached_property
  def _leanings(self) -> dict[str, dict[str, tuple[int, int]]]:
    return {side: {span: lean for text, lean in of.items() for span in spans([text])}
            for side, of in self._explained.leanings.items()}

  @functools.cached_property
  def _grades(self) -> dict[str, float]:
    return {span: grade for text, grade in self._explained.grades.items() for span in spans([text])}

  def parts(self, candidate: np.ndarray, job: np.ndarray,
            perspective: str) -> list[dict[str, float]]:
    """Of flat pairs [N], each field's part of the logit of a perspective."""
    found: Causes = self._explained.causes(candidate, job)
    return [dict(zip(found.fields, row)) for row in found.parts[perspective].tolist()]

  def reason(self, said: Sequence[Sayable], parts: Mapping[str, float], most: int = MOST) -> str:
    """The reason that names the pair's greatest causes; '' where nothing can be said."""
    return reason_of(said, telling(said, parts, most), parts, self.quoting)

  def quoting(self, said: Sayable, speaks_for: bool) -> Sequence[str] | None:
    """The first spans that show what a text's part is due to.

    Of the taste, a span of each side on the same axis, for the same pole or for the other one; of
    one side alone its first statement of a taste. Of projects the one that went best, or worst.
    """
    graded = {s: self._grades[s] for s in said.quotes[0] if s in self._grades}
    if graded:
      best = max(graded, key=lambda s: graded[s] if speaks_for else -graded[s])
      return [best, *(spans[0] for spans in said.quotes[1:])]
    own = [(s, self._leanings['candidate'][s]) for s in said.quotes[0]
           if s in self._leanings['candidate']]
    if len(said.quotes) == 1:
      return [own[0][0]] if own else None
    theirs = [(s, self._leanings['job'][s]) for s in said.quotes[1] if s in self._leanings['job']]
    for mine, (axis, pole) in own:
      for other, (their_axis, their_pole) in theirs:
        if axis == their_axis and (pole == their_pole) == speaks_for:
          return [mine, other]
    return None
