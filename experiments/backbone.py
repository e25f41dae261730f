"""The pretrained decoder that `backbone.path` names: its sizes, its words, its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict
import tokenizers

from experiments.setup import section
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.weights import families, gguf_file, gguf_tokenizer, huggingface

PyTree = Any


class Backbone(NamedTuple):
  """A pretrained decoder, opened but not loaded.

  Attributes:
    config: sizes and constants from its files; how it computes, and its adapters, from ours.
    tokenizer: reads its tokenizer.
    load: shardings -> its parameters, frozen.
  """

  config: DecoderConfig
  tokenizer: Callable[[], tokenizers.Tokenizer]
  load: Callable[[PyTree], PyTree]


def open_backbone(config: ConfigDict) -> Backbone | None:
  """What `backbone.path` names: a .gguf file, or a Hugging Face directory or hub name; or None.

  Raises:
    ValueError: it is not there, or is no decoder that ours can be.
  """
  place = config.backbone.path
  if not place:
    return None
  dtype = {'bfloat16': jnp.bfloat16, 'float32': jnp.float32}.get(config.backbone.dtype)
  if dtype is None:
    raise ValueError("backbone.dtype must be 'bfloat16' or 'float32', "
                     f'got {config.backbone.dtype!r}')
  changes = {'dtype': config.model.dtype, 'unroll': config.model.unroll,
             'remat': config.model.remat, 'lora': section(LoraConfig, config.lora)}
  if place.endswith('.gguf'):
    file = gguf_file.open_gguf(Path(place).expanduser())
    decoder = gguf_file.decoder_config(file, **changes)
    return Backbone(decoder, lambda: gguf_tokenizer.load_tokenizer(file),
                    lambda shardings: gguf_file.load_decoder(file, decoder, shardings, dtype))
  directory = huggingface.open_directory(place)
  decoder = families.decoder_config(directory.config, **changes)
  return Backbone(decoder, lambda: huggingface.load_tokenizer(directory.path),
                  lambda shardings: huggingface.load_decoder(directory, decoder, shardings, dtype))
