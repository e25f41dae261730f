"""benchmarks/RESULTS.md shows what benchmarks.retrieve keeps, and nothing that was edited."""

from benchmarks import retrieve
from jobrec_jax.schema.files import read_json


def test_the_page_is_as_it_is_written_from_the_kept_rows():
  page = retrieve.PAGE.read_text()
  assert retrieve.MARK.search(page) and retrieve.render(page) == page


def test_what_is_kept_has_each_system_at_three_requirements():
  kept = read_json(retrieve.RESULTS)
  for jobs, drawn in {(r['jobs'], r['drawn']) for r in kept}:
    of = [r for r in kept if (r['jobs'], r['drawn']) == (jobs, drawn)]
    for name in ('shortlist', 'linear', 'dense', 'codes', 'bm25'):
      assert len({r['tau'] for r in of if r['row'] == name}) == 3
