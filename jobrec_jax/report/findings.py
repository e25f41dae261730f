"""What came out, in sentences that a reader can check: rows in, sentences out.

Each sentence names its numbers and where they stand, and turns round when they do.
"""

from collections.abc import Callable, Iterator, Sequence
import math
from typing import Literal, NamedTuple

from jobrec_jax.report.results import (
    CANARY,
    CEILING,
    ResultRow,
    differences,
    format_number,
    interval_text,
    over_tau,
    pair_name,
)

Verdict = Literal['yes', 'no', 'open']
MARKS: dict[Verdict, str] = {'yes': '✓', 'no': '✗', 'open': '~'}
EXPERTS = {'preference': 'preference expert', 'qualification': 'qualification expert'}
LETTERS = {'preference': 'P', 'qualification': 'Q'}
WITHIN = ', within candidates'  # whose own mean changes no ranking of jobs
METRIC, METRIC_NAME = 'ndcg@5', 'NDCG@5'
CHANCE = 'canary: constant'  # all scores alike: in expectation over ties it is at chance
ELIGIBILITY = 'true eligibility@5'
LOSS, AT_EQUAL = 'loss of true preference@5', 'true preference@5 at equal eligibility'
SURPLUS, REGRET = 'expected surplus@5', 'regret of expected surplus@5'
INDEX = 'surplus index, p_qual log(1 + exp(s_pref))'
LOGGED, PROPENSITY = 'jobs drawn for test candidates', 'chance to apply'
EFFECTIVE_SHARE = 'effective share of the outcomes seen'
PLUG_IN = 'plug-in p_pref + μ p_qual'  # two lines of code, one parameter, nothing trained
KEPT = 0.01  # C so near to tau has reached it
FEW_COUNT = 0.1  # effective share of outcomes under which few decide
BY_LUCK = 0.025  # how often a 95% interval lies above the truth


class Finding(NamedTuple):
  """One sentence.

  Attributes:
    text: the sentence.
    place: the title of the table and the name of its row where the numbers stand.
    verdict: whether it is what one hopes for; 'open' where the interval does not say.
  """

  text: str
  place: tuple[str, str]
  verdict: Verdict


def findings(rows: Sequence[ResultRow]) -> list[Finding]:
  """Every sentence that the rows allow, the most important first.

  Args:
    rows: of results.json, in any number; what they lack is not spoken of.
  """
  parts: tuple[Callable[[Sequence[ResultRow]], Iterator[Finding]], ...] = (
      _rivals, _blanked, _prediction, _truth, _logged, _price, _kept, _plug_in, _surplus,
      _separation, _calibration, _canaries, _below_chance)
  return [finding for part in parts for finding in part(rows)]


def _rivals(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Each expert beside the rival that comes nearest to it or is furthest ahead of it."""
  paired = [r for r in rows if r.against and r.metric == METRIC and r.tau is None
            and math.isfinite(r.value) and not r.against.startswith(r.system)]
  for split, perspective in dict.fromkeys((r.split, r.perspective) for r in paired):
    expert = EXPERTS.get(perspective)
    here = [r for r in paired if (r.split, r.perspective, r.system) == (split, perspective, expert)]
    if not here:
      continue
    worst = min(here, key=lambda r: r.value)
    beaten = [r.against for r in here if r.low > 0]
    where = 'On test labels' if split == 'test' else f'On {split}' if split.startswith(
        'cold') else f'With {split}'
    verdict = _sign(worst.low, worst.high)
    if verdict == 'yes':
      rival = f'the strongest rival, {worst.against},' if len(here) > 1 else f'{worst.against}'
      text = f'{where} the {expert} beats {rival} by {_difference(worst)}'
    elif verdict == 'no':
      text = f'{where} the {expert} loses to {worst.against} by {_difference(worst, -1)}'
    else:
      text = f'{where} the {expert} does not beat {worst.against}: {_difference(worst)}'
    rest = [a for a in beaten if a != worst.against]
    others = f'; it beats {_listed(rest)}' if rest and verdict != 'yes' else ''
    yield Finding(f'{text}{others}.', (differences(split, perspective), pair_name(worst)), verdict)


def _blanked(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """What an expert loses without the narratives."""
  for r in rows:
    if r.against and r.metric == METRIC and r.against == f'{r.system}, narratives blanked':
      verdict = _sign(r.low, r.high)
      text = {'yes': f'The {r.system} reads the narratives: blanked, it loses {_difference(r)}.',
              'no': f'The {r.system} is misled by the narratives: blanked, it gains '
                    f'{_difference(r, -1)}.',
              'open': f'The {r.system} makes nothing of the narratives that can be told: blanked, '
                      f'it loses {_difference(r)}.'}[verdict]
      yield Finding(text, (differences(r.split, r.perspective), pair_name(r)), verdict)


def _prediction(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Whether the expected C is what was asked for, on stage 2's lists and on held-out ones."""
  gaps = [r for r in rows if r.metric == '|C − τ|' and math.isfinite(r.value)]
  if not gaps:
    return
  worst = max(gaps, key=lambda r: r.value)
  missed = [r for r in gaps if r.value > KEPT]
  covered = [r for r in rows if r.metric == 'τ in the interval of C']
  held = ''
  if covered:
    inside = sum(r.value > 0 for r in covered)
    held = f'; on held-out lists τ lies in the interval of C at {inside} of {len(covered)}'
  if missed:
    text = (f'{len(missed)} of {len(gaps)} requirements τ are not kept in prediction (largest gap '
            f'{format_number(worst.value)}, at τ {worst.tau:.4g}){held}.')
  else:
    text = (f'Every requirement τ is kept in prediction (largest gap {format_number(worst.value)})'
            f'{held}.')
  yield Finding(text, (over_tau(worst.split), f'{worst.tau:.4g}'), 'no' if missed else 'yes')


def _truth(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Whether the true C reaches what was asked for."""
  true = [r for r in rows if r.metric == 'true C' and r.tau and math.isfinite(r.value)
          and r.split != LOGGED]
  if not true:
    return
  worst = max(true, key=lambda r: r.tau - r.value)
  highest = ', the highest,' if worst.tau == max(r.tau for r in true) else ''
  reached = interval_text(worst.value, worst.low, worst.high)
  place = over_tau(worst.split), f'{worst.tau:.4g}'
  if worst.high < worst.tau:
    yield Finding(f'In truth eligibility falls short of τ, most at τ {worst.tau:.4g}{highest} by '
                  f'{format_number(worst.tau - worst.value)}: true C is {reached}.', place, 'no')
  elif worst.value < worst.tau:
    yield Finding(f'In truth no shortfall of τ can be told from chance; the largest is '
                  f'{format_number(worst.tau - worst.value)} at τ {worst.tau:.4g}, where true C is '
                  f'{reached}.', place, 'open')
  else:
    yield Finding(f'In truth every requirement τ is reached, least clearly at τ {worst.tau:.4g}, '
                  f'where true C is {reached}.', place, 'yes')


def _logged(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Whether the outcomes of applicants speak against the C that the expert believes."""
  found = {(r.metric, r.tau): r for r in rows if r.split == LOGGED and r.system == 'policy'}
  pairs = [(found['predicted C', tau], r) for (metric, tau), r in found.items()
           if metric == 'estimated C' and ('predicted C', tau) in found]
  share = [r.value for r in rows if r.metric == EFFECTIVE_SHARE]
  if not pairs:
    return
  few = share and share[0] < FEW_COUNT
  warned = (f'; the weights leave {share[0]:.0%} of the outcomes, so that few decide' if few
            else '')
  apart = [(b, e) for b, e in pairs if not e.low <= b.value <= e.high]
  believed, estimated = max(apart or pairs, key=lambda x: abs(x[0].value - x[1].value))
  text = (f'at τ {estimated.tau:.4g} the outcomes of test applicants make it '
          f'{interval_text(estimated.value, estimated.low, estimated.high)}, and '
          f'{format_number(believed.value)} is believed')
  said = (f'The log speaks against the believed C at {len(apart)} of {len(pairs)} requirements'
          if apart else 'The log does not speak against the believed C at any requirement')
  yield Finding(f'{said}: {text}{warned}.', (over_tau(LOGGED), f'{estimated.tau:.4g}'),
                'no' if apart or few else 'yes')


def _price(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """What the highest requirement brings in eligible recommendations, and costs in preference."""
  eligible = [r for r in rows if r.metric == ELIGIBILITY and r.tau is not None and not r.against]
  eligible = sorted((r for r in eligible if r.split == eligible[0].split), key=lambda r: r.tau)
  if len(eligible) < 2:
    return
  first, last = eligible[0], eligible[-1]
  rises = ('yes' if last.low > first.high else 'no' if last.value <= first.value else 'open')
  start = 'no requirement' if first.tau == 0 else f'τ {first.tau:.4g}'
  verb = {'yes': 'raises', 'no': 'does not raise', 'open': 'may raise'}[rises]
  text = (f'From {start} to τ {last.tau:.4g} the policy {verb} the true eligibility of the five '
          f'recommended, from {interval_text(first.value, first.low, first.high)} to '
          f'{interval_text(last.value, last.low, last.high)}')
  ndcg = {r.tau: r for r in rows if r.metric == METRIC and r.system == last.system
          and r.split == last.split and r.tau is not None and not r.against}
  if {first.tau, last.tau} <= ndcg.keys():
    change = ndcg[last.tau].value - ndcg[first.tau].value
    word = 'costs' if change < 0 else 'gains'
    text += f', and {word} {format_number(abs(change))} {METRIC_NAME}'
  yield Finding(f'{text}.', (over_tau(last.split, last.system), f'{last.tau:.4g}'), rises)


def _kept(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """What the policy keeps of preference where it is as eligible as the truth's own best trade."""
  found = {(r.system == 'policy', bool(r.against), r.metric): r for r in rows
           if r.metric.endswith(' of the way')}
  metrics = [m for policy, paired, m in found if policy and not paired]
  if not metrics:
    return
  reached = [m for m in metrics if math.isfinite(found[True, False, m].value)]
  metric = reached[-1] if reached else metrics[0]
  own, bound = found[True, False, metric], found[False, False, metric]
  e = found[False, False, metric.replace('preference', 'eligibility')]
  share = metric.split(' at ')[1]
  where = f'a true eligibility of {format_number(e.value)} ({share} from P to Q)'
  place = f'{own.split}: {own.perspective}', own.system
  if not reached:
    yield Finding(f'The five that the policy recommends never reach {where}, where the best '
                  f'possible true preference is {format_number(bound.value)}.', place, 'no')
    return
  lost = found[True, True, metric]
  yield Finding(f'At {where} the policy keeps a true preference of {_estimate(own)}; the best '
                f'possible is {format_number(bound.value)}, the difference '
                f'{_estimate(lost)}.', place, 'no' if lost.high < 0 else 'open')


def _plug_in(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Whether the policy keeps more anywhere than a plug-in that nobody trains."""
  for kind in ('true', 'labelled'):
    loss, equal = (name.replace('true', kind) for name in (LOSS, AT_EQUAL))
    lost = {(r.system, r.against): r for r in rows if r.metric == loss}
    gaps = [r for r in rows if r.metric == equal and r.against == PLUG_IN
            and math.isfinite(r.value)]
    if not {('policy', None), (PLUG_IN, None), ('policy', PLUG_IN)} <= lost.keys() or not gaps:
      continue
    better, most = [r for r in gaps if r.low > 0], max(gaps, key=lambda r: r.low)
    own, rival, gap = (lost[key] for key in (
        ('policy', None), (PLUG_IN, None), ('policy', PLUG_IN)))
    means = (f'against the frontier of the {"truth" if kind == "true" else "labels"} it loses '
             f'{_estimate(own)} on average, the plug-in {_estimate(rival)}')
    if better:
      text = (f'At {len(better)} of {len(gaps)} requirements the policy keeps more {kind} '
              f'preference than the {PLUG_IN} at equal eligibility, where luck alone would let '
              f'{BY_LUCK * len(gaps):.2g}; most clearly at τ {most.tau:.4g}, {_estimate(most)} '
              f'more; {means}.')
    else:
      text = (f'At no requirement can more {kind} preference be told in the policy than in the '
              f'{PLUG_IN} at equal eligibility: {means}. It is a dial for the requirement and no '
              'more.')
    verdict = 'yes' if better else 'no' if gap.low > 0 else 'open'
    told = most if better else gap
    yield Finding(text, (differences(told.split, told.perspective), pair_name(told)), verdict)


def _surplus(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """What is missing to the most that five jobs can be worth, by the index and by the policy."""
  found = [r for r in rows if r.metric == REGRET and not r.against]
  index = [r for r in found if r.system == INDEX]
  asked = [r for r in found if r.system == 'policy']
  if not index or not asked:
    return
  own, best = index[0], min(asked, key=lambda r: r.value)
  at = f'τ {best.tau:.4g}' if best.tau else 'no requirement'
  text = (f'Ranked by the surplus that both experts expect, the five recommended are worth '
          f'{_estimate(own)} less than the best by the truths; those of the policy come nearest at '
          f'{at}, {_estimate(best)}.')
  verdict = 'yes' if own.value < best.value else 'no'
  yield Finding(text, (f'{own.split}: {own.perspective}', own.system), verdict)


def _separation(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Whether each expert follows its own truth, and given that not the other's."""
  for perspective, expert in EXPERTS.items():
    own = LETTERS[perspective]
    (other,) = set(LETTERS.values()) - {own}
    found = {r.metric: r for r in rows if r.system == expert and r.metric.startswith('correlation')}
    within, start = (WITHIN, 'Within candidates, given') if own == 'P' else ('', 'Given')
    mine = found.get(f'correlation with {own} given {other}{within}')
    theirs = found.get(f'correlation with {other} given {own}{within}')
    if not (mine and theirs and math.isfinite(mine.value) and math.isfinite(theirs.value)):
      continue
    follows, clean = mine.low > 0, theirs.low <= 0 <= theirs.high
    left = found.get(f'correlation of P and Q given the score{within}')
    text = (f'{start} {other}, the {expert} {"follows" if follows else "does not follow"} {own} '
            f'(partial correlation {_estimate(mine)}); given {own}, '
            f'{"nothing of" if clean else "something of"} {other} '
            f'{"can be told" if clean else "is left"} in it ({_estimate(theirs)}).')
    if left and not clean:  # by attenuation, or because it leans on what goes with the other truth
      clean = left.high >= 0
      text += (f' Given the score, P and Q correlate at {_estimate(left)}: '
               + (f'what is left comes of what it does not know of {own}, and nothing of {other} '
                  f'is taken for it.' if clean else f'it leans on {other} more than {own} does.'))
    yield Finding(text, (f'{mine.split}: {mine.perspective}', expert),
                  'yes' if follows and clean else 'no')


def _calibration(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """How far predicted eligibility is off, beside what it would be uncalibrated."""
  expert = EXPERTS['qualification']
  of = {(r.system, r.metric): r for r in rows if r.metric.startswith('calibration error')}
  now, raw = of.get((expert, 'calibration error')), of.get(
      (f'{expert}, uncalibrated', 'calibration error'))
  if now is None or raw is None:
    return
  by_job = of.get((expert, 'calibration error by job'))
  within = f', and within a job by {_estimate(by_job)}' if by_job else ''
  helped = now.value < raw.value
  text = (f'Predicted eligibility is off by {format_number(now.value)} on average over pairs'
          f'{within}; uncalibrated by {format_number(raw.value)}'
          f'{"" if helped else ", so that calibration did not help"}.')
  yield Finding(text, (f'{now.split}: {now.perspective}', expert), 'yes' if helped else 'no')


def _canaries(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Scores that know nothing, where they beat chance: something leaks there."""
  cases = _cases(rows)
  looked = [(r, chance) for rs, chance in cases for r in rs
            if r.system.startswith(CANARY) and r.system != CHANCE]
  if not looked:
    return
  loud = [(r, chance) for r, chance in looked if r.low > chance.value]
  if loud:
    r, chance = max(loud, key=lambda x: x[0].low - x[1].value)
    names = _listed([f'{x.system} ({x.split}, {x.perspective})' for x, _ in loud])
    text = (f'{len(loud)} of {len(looked)} canaries beat chance, where luck alone would let '
            f'{BY_LUCK * len(looked):.2g}: {names}. The clearest: {_estimate(r)} '
            f'{METRIC_NAME}, chance is {format_number(chance.value)}.')
    place = f'{r.split}: {r.perspective}', r.system
  else:
    r = max(looked, key=lambda x: x[0].low - x[1].value)[0]
    text = f'No canary beats chance ({len(looked)} looked at), so nothing seems to leak.'
    place = f'{r.split}: {r.perspective}', CHANCE
  yield Finding(text, place, 'no' if loud else 'yes')


def _below_chance(rows: Sequence[ResultRow]) -> Iterator[Finding]:
  """Systems that rank worse than no ranking at all."""
  cases = _cases(rows)
  if not cases:
    return
  below = [r for rs, chance in cases for r in rs if r.high < chance.value
           and not r.system.startswith(CANARY) and CEILING not in r.system]
  r = below[0] if below else cases[0][1]
  text = ('Worse than chance: ' + (_listed([f'{x.system} ({x.split}, {x.perspective}: '
                                            f'{_estimate(x)} {METRIC_NAME})' for x in below])
                                   if below else 'nothing') + '.')
  yield Finding(text, (f'{r.split}: {r.perspective}', r.system), 'no' if below else 'yes')


def _cases(rows: Sequence[ResultRow]) -> list[tuple[list[ResultRow], ResultRow]]:
  """The systems' rows of each split and perspective that has a row at chance, and that row."""
  plain = [r for r in rows if r.metric == METRIC and r.tau is None and not r.against]
  chance = {(r.split, r.perspective): r for r in plain if r.system == CHANCE
            and math.isfinite(r.value)}
  return [([r for r in plain if (r.split, r.perspective) == case], at)
          for case, at in chance.items()]


def _sign(low: float, high: float) -> Verdict:
  return 'yes' if low > 0 else 'no' if high < 0 else 'open'


def _difference(row: ResultRow, sign: int = 1) -> str:
  low, high = sorted((sign * row.low, sign * row.high))
  value, *interval = interval_text(sign * row.value, low, high).split(' ', 1)
  return ' '.join([value, METRIC_NAME, *interval])


def _estimate(row: ResultRow) -> str:
  return interval_text(row.value, row.low, row.high)


def _listed(names: Sequence[str]) -> str:
  *most, last = names
  return f'{", ".join(most)} and {last}' if most else last
