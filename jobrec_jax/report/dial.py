"""The dial: rankings of held-out candidates at every requirement, moved by a slider or by keys.

What is printed, or shown where no script runs, is a table of the same numbers.
"""

from collections.abc import Mapping
from html import escape
from importlib import resources
import json
from typing import Any

from jobrec_jax.report.html import table_html
from jobrec_jax.report.results import Table, format_number

# What is shown of each knot: key, what it is, whether it needs the truth.
MEASURES = (('C', 'C, what τ binds', False),
            ('true C', 'true C, in truth over the whole list', True),
            ('p_qual', 'eligible by prediction, of the five', False),
            ('Q', 'eligible in truth, of the five', True),
            ('P', 'wanted in truth, of the five', True),
            ('s_pref', 'preference score of the five (nats)', False))


def script() -> str:
  """The page's JavaScript."""
  return resources.files('jobrec_jax.report').joinpath('dial.js').read_text(encoding='utf-8')


def dial_html(dial: Mapping[str, Any]) -> str:
  """The dial's element; its records travel as JSON and are shown as text alone, never as markup.

  Args:
    dial: what `pipeline.dial` keeps.
  """
  content = {**dial, 'measures': [[key, words] for key, words, _ in measures(dial)],
             'cost': cost_of(dial)}
  # Within a script element a < could end it; elsewhere in JSON it cannot stand.
  data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace('<', '\\u003c')
  options = ''.join(f'<option value="{i}">{escape(c["id"])}</option>'
                    for i, c in enumerate(dial['candidates']))
  static = '\n'.join(table_html(t) for t in (over_all(dial), of_candidate(dial, 0)))
  return f"""<div class="dial" id="dial">
<div class="controls">
<div class="knob">
<div class="asked"><label>Candidate <select id="dial-candidate">{options}</select></label>
<label for="dial-tau">Eligibility asked for: <output id="dial-value"></output></label></div>
<input type="range" id="dial-tau" min="0" max="{len(dial['taus']) - 1}" step="1" value="0"
 aria-describedby="dial-hint">
</div>
<p class="hint" id="dial-hint">Move the slider, or press ← and → anywhere in this box. Home and End
lead to the ends.</p>
<p id="dial-says" role="status" aria-live="polite"></p>
<div class="halves"><ol id="dial-jobs" aria-label="The five jobs ranked first"></ol>
<div><table><caption>What it brings and costs</caption><thead><tr><th scope="col"></th>
<th scope="col">this candidate</th><th scope="col">all {dial['lists']:,} lists</th></tr></thead>
<tbody id="dial-numbers"></tbody></table>
<details><summary>The candidate's record</summary><dl id="dial-about"></dl></details></div></div>
</div>
<div class="static">{static}</div>
<script type="application/json" id="dial-data">{data}</script>
</div>"""


def measures(dial: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
  """Those of `MEASURES` that can be shown: preference in truth, or by score where it is unknown."""
  known = dial['known']
  return [m for m in MEASURES if (known or not m[2]) and not (known and m[0] == 's_pref')]


def cost_of(dial: Mapping[str, Any]) -> str:
  """The measure whose fall is the cost in preference."""
  return 'P' if dial['known'] else 's_pref'


def asked(dial: Mapping[str, Any], k: int) -> str:
  return 'nothing' if k == 0 and dial['asks_nothing'] else f'τ {dial["taus"][k]:.3f}'


def over_all(dial: Mapping[str, Any]) -> Table:
  """Means over all lists at every knot."""
  shown, cost = measures(dial), cost_of(dial)
  means = dial['all']
  return Table(f'The dial: means over {dial["lists"]:,} held-out lists',
               ('asked', *(words for _, words, _ in shown), 'cost in preference'),
               tuple((asked(dial, k), *(format_number(means[key][k]) for key, _, _ in shown),
                      format_number(means[cost][0] - means[cost][k]))
                     for k in range(len(dial['taus']))))


def of_candidate(dial: Mapping[str, Any], i: int) -> Table:
  """The jobs of one candidate at every knot, each with its p_qual."""
  c = dial['candidates'][i]
  rows = []
  for k, ranked in enumerate(c['ranked']):
    jobs = [f'{dial["jobs"][str(j)]["id"]} ({c["pairs"][str(j)]["p_qual"]:.2f})' for j in ranked]
    rows.append((asked(dial, k), *jobs))
  places = tuple(f'place {n + 1}' for n in range(len(c['ranked'][0])))
  return Table(f'The dial: candidate {c["id"]}, jobs and their p_qual', ('asked', *places),
               tuple(rows))
