"""Worlds of earlier versions can be drawn again, to the bit."""

import dataclasses
import hashlib

import numpy as np
import pytest

from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.data.market.logits import variance_parts
from jobrec_jax.data.market.simulator import MarketConfig, make_market, simulate

# The data set's fingerprint and the truth's digest, kept from before there was a second version.
FIRST = {
    ('students', 'uniform'): ('d87fca4bae104d01', '1affa79d32f061f5'),
    ('students', 'popularity'): ('9fa815263b87bbfd', '1affa79d32f061f5'),
    ('students', 'recommender'): ('a0e31981bc8a8679', '1affa79d32f061f5'),
    ('nursing', 'uniform'): ('1fde0f7916f89c69', '874935bb0010a429'),
    ('nursing', 'popularity'): ('86428341a55a84a3', '874935bb0010a429'),
    ('nursing', 'recommender'): ('387459be1f2ab80c', '874935bb0010a429')}


def digests(config):
  dataset, truth = simulate(config, 3)
  digest = hashlib.sha256()
  for field in dataclasses.fields(truth):
    digest.update(np.ascontiguousarray(getattr(truth, field.name)).tobytes())
  return dataset.fingerprint(), digest.hexdigest()[:16]


@pytest.mark.parametrize(('name', 'logging'), FIRST)
def test_the_first_version_is_what_it_was(name, logging):
  config = MarketConfig(domain=name, candidates=60, jobs=20, exposure=0.6, logging=logging,
                        version='1')
  assert digests(config) == FIRST[name, logging]
  # Knobs that it does not have change nothing.
  other = dataclasses.replace(config, syntax=1.0, qualification_pair=0.8)
  assert digests(other) == FIRST[name, logging]
  newest = digests(dataclasses.replace(config, version='2', texts='sentences'))
  assert newest[0] != FIRST[name, logging][0] and newest[1] != FIRST[name, logging][1]


@pytest.mark.parametrize('name', names())
def test_versions_differ_in_texts_and_in_logit_q_alone(name):
  markets = [make_market(MarketConfig(domain=name, version=v, texts='sentences'), 0)
             for v in ('1', '2')]
  old, new = (m.columns(0) for m in markets)
  for attribute, codes in old.codes.items():
    if old.domain.attribute('candidate', attribute).kind != 'text':
      np.testing.assert_array_equal(codes, new.codes[attribute])
  u, j = np.arange(old.n)[:, None], np.arange(100)
  (p, q), (p2, q2) = markets[0].logits(old, u, j), markets[1].logits(new, u, j)
  np.testing.assert_array_equal(p, p2)
  assert variance_parts(q).pair < 0.25 < 0.395 < variance_parts(q2).pair < 0.405
  assert load_domain(name, 'notes').schema is load_domain(name).schema
