"""docs/explain.md shows what benchmarks.reasons keeps, and nothing that was edited."""

from benchmarks import reasons
from jobrec_jax.evaluate.reasons import METRICS
from jobrec_jax.schema.files import read_json

KEPT = read_json(reasons.KEPT / 'students.json')


def test_the_page_is_as_it_is_written_from_the_kept_rows():
  pages = [page.read_text() for page in reasons.PAGES]
  shown = {m[1:3] for page in pages for m in reasons.MARK.findall(page)}
  assert {part for domain, part in shown if domain == 'students'} == set(reasons.PARTS)
  assert {domain for domain, _ in shown} == {p.stem for p in reasons.KEPT.iterdir()}
  assert [reasons.render(page) for page in pages] == pages


def test_a_table_has_every_system_and_metric_and_a_dash_for_what_is_not_there():
  table = reasons.table(KEPT, 'preference').splitlines()
  assert len(table) == 2 + 5 and all(line.count('|') == len(METRICS) + 2 for line in table)
  assert '–' in next(line for line in table if 'templates' in line)  # it judges no text
