"""The stage that writes a reason of every pair, for experts who read it before they judge."""

import dataclasses
import functools

import numpy as np

from jobrec_jax.generate.chain import Chains, ReasonedBlocks, write_chains
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.pipeline.text import Text
from jobrec_jax.schema.files import load_array, save_array

CHAINS = 'chains.npy'


def make_chain(bench: Bench) -> None:
  """Writes the chains of all pairs of the data, [candidates, jobs, E n]."""
  dataset, tokens = bench.inputs['data'].dataset, bench.settings['tokens']
  shape = len(dataset.candidates), len(dataset.jobs)
  candidate, job = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
  chains = write_chains(bench.inputs['writer'], dataset, candidate, job, tokens)
  save_array(bench.folder / CHAINS, chains.reshape(*shape, -1))


def read_chain(bench: Bench) -> Text:
  """How records become tokens, chains behind the verdicts."""
  text: Text = bench.inputs['tokenizer']
  chains = Chains(bench.inputs['writer'], bench.inputs['data'].dataset,
                  load_array(bench.folder / CHAINS))
  t = text.spec.tokenizer
  longer = dataclasses.replace(t, alignment=t.alignment + chains.length)
  return text._replace(spec=dataclasses.replace(text.spec, tokenizer=longer),
                       encoder=functools.partial(ReasonedBlocks, chains=chains))
