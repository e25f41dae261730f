"""How figures look, and the files they become: PDF and PNG for papers, SVG inside a page.

A figure is drawn twice, for a wide and for a narrow page, by a function of `narrow`. In the SVG the
colours below are CSS variables, so that the page's dark mode and its print colour it.
"""

from collections.abc import Callable
import dataclasses
import io
from pathlib import Path
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
import numpy as np

from jobrec_jax.schema.files import replacing

# Distinct in colour and in lightness for every common kind of colour vision.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#555555')
DARK = ('#5aaeea', '#ff8a4c', '#3fcf9f', '#e6a3c8', '#f2bd42', '#a3d8f7', '#b6bec6')  # on black
MARKERS = 'os^DvP*X'  # one more than colours, so that pairs repeat late
INK, SOFT, GRID, BACK = '#1b1f24', '#5b6571', '#dadfe4', '#fffffe'
VARIABLES = {INK: 'ink', SOFT: 'soft', GRID: 'grid', BACK: 'back',
             **{color: f'c{i}' for i, color in enumerate(PALETTE)}}
# A row of requirements: as light at both ends, so that each line shows on white and on black.
_RAMP = LinearSegmentedColormap.from_list('tau', ('#2f7ed8', '#9a5fc0', '#e0560f'))
NARROW = 3.6  # inches that a phone shows without shrinking letters

Draw = Callable[[bool], Figure]


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure as a page holds it.

  Attributes:
    wide, narrow: SVG elements.
    width: of the wide one in inches.
    caption: below it, and its description for those who cannot see it.
  """

  wide: str
  narrow: str
  width: float
  caption: str = ''


def panels(count: int, narrow: bool, width: float = 4.4, height: float = 3.5,
           **shared: bool) -> tuple[Figure, list[Axes]]:
  """A figure with panels beside each other, or below each other where the page is narrow.

  Args:
    count: how many.
    narrow: whether the page is.
    width, height: of a panel in inches; the width on a wide page.
    shared: `sharex`, `sharey`.
  """
  size = (NARROW, height * count + 0.2) if narrow else (width * count, height)
  figure = Figure(figsize=size, layout='constrained', facecolor='none')
  axes = figure.subplots(*((count, 1) if narrow else (1, count)), squeeze=False, **shared).ravel()
  return figure, list(axes)


def clean(axes: Axes) -> None:
  """The look that all panels share."""
  axes.set_facecolor('none')
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['bottom', 'left']].set_color(SOFT)
  axes.grid(color=GRID, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=9, color=SOFT, labelcolor=INK)
  for text in (axes.xaxis.label, axes.yaxis.label):
    text.set_color(INK)
    text.set_fontsize(9)
  axes.title.set_color(INK)
  axes._left_title.set_color(INK)


def legend(figure: Figure, narrow: bool, columns: int = 4) -> None:
  """One legend below all panels, with each name once."""
  named = {label: handle for axes in figure.axes
           for handle, label in zip(*axes.get_legend_handles_labels())}
  if named:
    figure.legend(named.values(), named, loc='outside lower center', frameon=False, fontsize=9,
                  ncols=1 if narrow else min(columns, len(named)), labelcolor=INK)


def ramp(count: int) -> list[tuple]:
  """A colour for each of `count` requirements, ascending."""
  return [_RAMP(x) for x in np.linspace(0, 1, max(count, 1))]


def save(draw: Draw, folder: str | Path, name: str, caption: str = '') -> Picture:
  """Writes NAME.png and NAME.pdf whole, making the folder; returns the figure for a page."""
  folder = Path(folder)
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name, 'pdf.fonttype': 42}):
    wide = draw(False)
    picture = Picture(_svg(wide, f'{name}-wide'), _svg(draw(True), f'{name}-narrow'),
                      float(wide.get_size_inches()[0]), caption)
    wide.set_layout_engine('none')  # it lies as on the page; a layout takes a draw more
    for canvas, form, metadata in ((FigureCanvasAgg, 'png', {}),
                                   (FigureCanvasPdf, 'pdf', {'CreationDate': None})):
      with replacing(folder / f'{name}.{form}', 'wb') as file:
        canvas(wide).print_figure(file, dpi=160, format=form, facecolor='white', metadata=metadata)
  return picture


def _svg(figure: Figure, name: str) -> str:
  """An SVG element whose names no other figure of a page shares, coloured by CSS variables."""
  out = io.StringIO()
  FigureCanvasSVG(figure).print_svg(out, metadata={'Date': None})
  text = out.getvalue()
  text = text[text.index('<svg'):]
  text = re.sub(r'<metadata>.*?</metadata>\s*', '', text, count=1, flags=re.S)
  text = re.sub(r' width="[^"]*pt" height="[^"]*pt"', '', text, count=1)
  text = text.replace('<svg', '<svg aria-hidden="true"', 1)
  text = re.sub(r'\bid="', f'id="{name}-', text)
  text = re.sub(r'(href="#|url\(#)', rf'\g<1>{name}-', text)
  text = re.sub(r'font-family: [^;"]*', 'font-family: var(--sans)', text)
  text = re.sub(r'font: ([^;"]*?px) [^;"]*', r'font: \1 var(--sans)', text)
  for color, variable in VARIABLES.items():
    text = re.sub(rf'{color}\b', f'var(--{variable})', text)
  return text.strip()
