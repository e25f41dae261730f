"""What a finished run folder holds of its experts; its data set is not needed."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from configs import base
from experiments.backbone import open_backbone
from experiments.setup import Run, section, validate
from experiments.stages import load_calibration, make_model
from jobrec_jax.data.market.domain import load_domain
from jobrec_jax.data.tokens import BlockLengths, load_tokenizer
from jobrec_jax.recommend import TrainedExperts
from jobrec_jax.schema.schema import Schema
from jobrec_jax.sharding import make_mesh
from jobrec_jax.train.checkpoint import load_params

PyTree = Any


class Trained(NamedTuple):
  """A run's config, domain and experts, on the mesh that its config asks for."""

  config: ConfigDict
  schema: Schema
  mesh: jax.sharding.Mesh
  experts: TrainedExperts


def read_config(run: Run) -> ConfigDict:
  """The config that a run was made with.

  Raises:
    ValueError: the file holds a key or a type that the defaults do not have.
  """
  config = base.get_config()
  try:
    config.update(run.read_json('config.json', 'experiments.quickstart'))
  except (KeyError, TypeError) as error:
    raise ValueError(f'{run / "config.json"}: must hold the keys of configs/base.py alone, '
                     f'got: {error.args[0]}') from error
  return config


def load_trained(run: Run) -> Trained:
  """Raises ValueError where a part is missing or does not fit the others."""
  config = read_config(run)
  settings = validate(config)
  schema = load_domain(settings.market.domain).schema
  tokenizer = load_tokenizer(run / 'tokenizer.json')
  calibration = load_calibration(run)
  backbone = open_backbone(config)
  params = load_params(run / 'checkpoints/cooperative', schema.fingerprint())['model']
  if backbone is not None:
    params |= {'decoder': backbone.load(None)}
  model = make_model(config, tokenizer.get_vocab_size(), backbone)
  experts = TrainedExperts(model, params, tokenizer, section(BlockLengths, config.tokenizer),
                           calibration)
  return Trained(config, schema, make_mesh(settings.mesh), experts)
