"""Real decisions of two sides, in files that know nothing of this project: no converter, one TOML.

JOBREC_DATES names a folder with men.csv, women.csv and dates.csv: people who met at organised dates
for a study (Fisman, Iyengar, Kamenica and Simonson, 2006).
"""

import os
from pathlib import Path

import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.tables.reader import Division, read_tables
from jobrec_jax.evaluate.audit import audit

DATES = os.environ.get('JOBREC_DATES')
SCHEMA = Path(__file__).with_name('dates.toml')


@pytest.mark.skipif(not DATES, reason='JOBREC_DATES does not name a folder with the real dates')
def test_the_real_dates_are_read_as_they_lie():
  assert len(SCHEMA.read_text().splitlines()) <= 60
  dataset = read_tables(DATES, SCHEMA, Division(0, (0.5, 0.1, 0.15, 0.25)))
  log = dataset.interactions
  assert (len(dataset.candidates), len(dataset.jobs), len(log)) == (277, 274, 2952)
  assert (log.preference == 1).sum() == 1397
  # Hers is known of every date in the test, elsewhere where he said yes alone.
  known = log.qualification >= 0
  test = log.split == SPLITS.index('test')
  assert known[test].all()
  np.testing.assert_array_equal(known[~test], log.preference[~test] == 1)
  assert any('1173 pairs that were not wanted is hidden' in note for note in dataset.notes)
  assert not audit(dataset).failed()
