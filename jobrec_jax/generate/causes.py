"""From what moves a pair's score to the claims that say so: what a writer learns to write.

A field counts where what can be said of it points the way in which it moves the score: 'met' up,
'unmet' down. Text may speak either way. Of these fields a reason names the few that move it most.
"""

from collections.abc import Callable, Mapping, Sequence

from jobrec_jax.generate.claims import MOST, Sayable, reason

LEAST = 0.25  # of the greatest part: what moves the score less is no reason beside it
Quoting = Callable[[Sayable, bool], Sequence[str] | None]


def telling(said: Sequence[Sayable], parts: Mapping[str, float], most: int = MOST,
            least: float = LEAST) -> list[str]:
  """The fields that move a score most among those that can say so, the greatest first.

  Args:
    said: what may be said of the pair.
    parts: by field, how much it moves the score, and which way.
    most: how many fields, at most.
    least: share of the greatest part that each must have.
  """
  size = {s.field: abs(parts[s.field]) for s in said if _points(s, parts[s.field])}
  order = sorted(size, key=size.get, reverse=True)[:most]
  return [name for name in order if size[name] >= least * size[order[0]]]


def _points(said: Sayable, part: float) -> bool:
  if said.quotes:
    return part != 0
  return part > 0 if said.words[len(said.field):].split()[0] == 'met' else part < 0


def reason_of(said: Sequence[Sayable], fields: Sequence[str], parts: Mapping[str, float],
              quoting: Quoting) -> str:
  """A reason that names some fields; '' where no claim is left.

  Args:
    said: what may be said of the pair.
    fields: to be named; in the reason they stand in the order of `said`.
    parts: by field, of text: above 0 where it speaks for the job.
    quoting: the spans that show it, given a field of text and whether it speaks for the job; None
      where there are none, and the field is left out.
  """
  claims = []
  for s in said:
    if s.field in fields:
      shown = quoting(s, parts[s.field] > 0) if s.quotes else ()
      if shown is not None:
        claims.append(s.claim('for' if parts[s.field] > 0 else 'against', shown))
  return reason(claims) if claims else ''


def first_spans(said: Sayable, speaks_for: bool) -> Sequence[str]:
  """The first span of each side, for those who cannot tell which one shows it."""
  del speaks_for
  return [spans[0] for spans in said.quotes]
