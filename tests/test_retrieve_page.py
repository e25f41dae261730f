"""benchmarks/RESULTS.md shows what benchmarks.retrieve keeps, and nothing that was edited."""

from benchmarks import retrieve
from jobrec_jax.schema.files import read_json


def test_the_page_is_as_it_is_written_from_the_kept_rows():
  page = retrieve.PAGE.read_text()
  assert retrieve.MARK.search(page) and retrieve.render(page) == page


def test_what_is_kept_has_two_sizes_at_three_requirements_and_the_rivals():
  kept = read_json(retrieve.RESULTS)
  systems = {}
  for row in kept:
    systems.setdefault((row['jobs'], row['drawn'], row['row']), set()).add(row.get('tau'))
  for jobs in (10_000, 100_000):
    assert len(systems[jobs, 0.0, 'shortlist']) == 3 and (jobs, 0.0, 'full') in systems
  for name in ('linear', 'dense', 'codes', 'bm25'):
    assert len(systems[10_000, 0.0, name]) == 3
