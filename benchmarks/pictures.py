"""The picture of the result: preference against true eligibility, as SVG of its own.

Neutral colours on a transparent ground, so that one file is read on light and on dark pages.
"""

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 30, 60  # margins around the axes
GREY, BLUE = '#717a84', '#2f81f7'
STYLE = f'text {{ font: 13px system-ui, sans-serif; fill: {GREY}; }}'


class Point(NamedTuple):
  """Mean and standard deviation over seeds: x, the true eligibility; y, the preference.

  A label is written beside the point; '' for none.
  """

  label: str
  x: float
  x_sd: float
  y: float
  y_sd: float


def trade_off(points: Sequence[Point], x_name: str, y_name: str) -> str:
  """The SVG of points that are joined in their order, each with its standard deviations."""
  xs, ys = (_axis([v for p in points for v in (p[i] - p[i + 1], p[i] + p[i + 1])]) for i in (1, 3))

  def x(value: float) -> float:
    return round(LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT), 1)

  def y(value: float) -> float:
    return round(HEIGHT - BOTTOM - (value - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM), 1)

  floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
  parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
           'aria-labelledby="title">', f'<title id="title">{y_name} against {x_name}</title>',
           f'<style>{STYLE}</style>']
  for tick in xs:
    parts.append(f'<text x="{x(tick)}" y="{floor + 20}" text-anchor="middle">{tick:.2f}</text>')
  for tick in ys:
    parts += [f'<path d="M{LEFT} {y(tick)} H{end}" stroke="{GREY}" stroke-opacity="0.3"/>',
              f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>']
  parts += [f'<text x="{(LEFT + end) / 2:g}" y="{HEIGHT - 14}" text-anchor="middle">'
            f'{x_name}</text>',
            f'<text transform="translate(20 {(TOP + floor) / 2:g}) rotate(-90)" '
            f'text-anchor="middle">{y_name}</text>',
            '<polyline points="' + ' '.join(f'{x(p.x)},{y(p.y)}' for p in points)
            + f'" fill="none" stroke="{BLUE}" stroke-width="2"/>']
  for p in points:
    parts += [f'<path d="M{x(p.x - p.x_sd)} {y(p.y)} H{x(p.x + p.x_sd)} M{x(p.x)} '
              f'{y(p.y - p.y_sd)} V{y(p.y + p.y_sd)}" stroke="{GREY}"/>',
              f'<circle cx="{x(p.x)}" cy="{y(p.y)}" r="5" fill="{BLUE}"/>']
    if p.label:
      side, anchor = (10, 'start') if x(p.x) < WIDTH / 2 else (-10, 'end')
      parts.append(f'<text x="{x(p.x) + side:.1f}" y="{y(p.y) + 22:.1f}" text-anchor="{anchor}">'
                   f'{p.label}</text>')
  return '\n'.join([*parts, '</svg>', ''])


def _axis(values: Sequence[float]) -> list[float]:
  """Ticks, multiples of 0.02, 0.05 or 0.1, that enclose the values."""
  low, high = min(values), max(values)
  step = next((s for s in (2, 5, 10) if (high - low) * 100 / s <= 7), 20)
  first, last = int(low * 100 // step), int(-(-high * 100 // step))
  return [i * step / 100 for i in range(first, max(last, first + 1) + 1)]
