"""benchmarks/RESULTS.md shows the kept kills, and what is said of them holds of every row."""

from benchmarks import kills
from jobrec_jax.schema.files import read_json


def test_the_table_is_of_the_kept_rows():
  page = kills.PAGE.read_text()
  assert kills.render(page, read_json(kills.RESULTS)) == page


def test_no_kill_lost_more_than_an_unfinished_checkpoint():
  rows = [row for row in read_json(kills.RESULTS) if row['kind'] != 'end']
  assert rows and not any(
      row.get(name) for row in rows for name in ('lost', 'made_again', 'damaged'))
  assert all(row['ended_s'] is not None and row['ended_s'] < 60 for row in rows)


def test_resumed_runs_gave_what_an_undisturbed_one_gives():
  ends = {row['chain']: row for row in read_json(kills.RESULTS) if row['kind'] == 'end'}
  assert set(ends) == set(kills.CHAINS)
  for name, row in ends.items():
    assert row['same_rows'] and row['same_steps']
    assert row['same_bits'] if name != 'changing' else (
        row['greatest_difference'] <= kills.TOLERANCE)
