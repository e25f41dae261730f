"""The tokenizer of a run, the lengths of its token blocks, and the components of their words."""

from absl import logging
import numpy as np

from jobrec_jax.data.components import Components
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lengths import choose_lengths
from jobrec_jax.data.missing import Versions, with_missing
from jobrec_jax.data.phrases import add_phrases
from jobrec_jax.data.tokens import (
  BlockEncoder,
  corpus,
  save_tokenizer,
  train_tokenizer,
)
from jobrec_jax.pipeline.artefacts import save_params
from jobrec_jax.pipeline.model import LENGTHS, ModelSpec, TokenizerSettings, open_backbone
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.pipeline.text import COMPONENTS, TOKENIZER, Text, read_text
from jobrec_jax.schema import streams
from jobrec_jax.schema.align import fields_with_verdicts
from jobrec_jax.schema.files import write_json
from jobrec_jax.schema.schema import Schema


def training_versions(bench: Bench) -> Versions | None:
  """The run's records with attributes missing, the same in every stage; None for whole ones."""
  share = bench.settings['missing']
  rng = streams.rng(bench.settings['seed'], 'missing attributes')
  return with_missing(bench.inputs['data'].dataset, share, rng) if share else None


def make_tokenizer(bench: Bench) -> None:
  """The backbone's tokenizer, with phrases where they are asked for, or one trained here.

  Beside it the lengths of token blocks, those that the settings leave to the texts among them.
  """
  spec: ModelSpec = bench.settings['spec']
  versions = training_versions(bench)
  # 'unknown' must be among the words that it learns, and find room in blocks.
  dataset = versions.dataset if versions else bench.inputs['data'].dataset
  backbone = open_backbone(spec, bench.resources.backbone)
  t = spec.tokenizer
  if backbone is None or t.phrases:
    texts = corpus(dataset, seed=streams.seed32(bench.settings['seed'], 'corpus'),
                   verdicts=t.verdicts, layout=t.layout, without_layers=t.without_layers)
  if backbone is None:
    tokenizer = train_tokenizer(texts, t.vocab_size)
  elif t.phrases:
    tokenizer = add_phrases(backbone.tokenizer(), texts, t.phrases)
  else:
    tokenizer = backbone.tokenizer()
  save_tokenizer(tokenizer, bench.folder / TOKENIZER)
  form, found = choose_lengths(dataset, tokenizer, t.form,
                               streams.seed32(bench.settings['seed'], 'lengths'))
  for length in found:
    logging.info('tokens: %s', length.in_words())
  write_json(bench.folder / LENGTHS, {
      **{name: getattr(form, name) for name in ('candidate', 'job', 'alignment')},
      'numbers': count_numbers(t, dataset.schema), 'matched': t.components})
  if t.components:
    blocks = BlockEncoder(bench.inputs['data'].dataset, tokenizer, form)
    save_params(bench.folder / COMPONENTS,
                _components(bench.inputs['data'].dataset, blocks, t.components).arrays)


def count_numbers(settings: TokenizerSettings, schema: Schema) -> int:
  """How many numbers a pair has beside its tokens: of its verdicts, and of its sides' words."""
  form = settings.form
  fields = fields_with_verdicts(schema.without(form.without_layers))
  return 4 * len(fields) * form.numbers + 2 * settings.components


def _components(dataset: Dataset, blocks: BlockEncoder, rank: int) -> Components:
  """Those of the train split's records."""
  train = dataset.interactions.of('train')
  return Components.fit({'candidate': blocks.candidates[np.unique(train.candidate)],
                         'job': blocks.jobs[np.unique(train.job)]}, blocks.vocab_size, rank)


def read_tokenizer(bench: Bench) -> Text:
  return read_text(bench.folder, bench.settings['spec'])
