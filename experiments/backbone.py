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
from jobrec_jax.models.quantized import QTYPES, quantizer
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
  stored, dtype, then = config.backbone.dtype, jnp.bfloat16, lambda name, x: x
  if stored == 'float32':
    dtype = jnp.float32
  elif stored in QTYPES:
    then = quantizer(stored)
  elif stored != 'bfloat16':
    raise ValueError(f"backbone.dtype must be 'bfloat16', 'float32' or one of {QTYPES}, "
                     f'got {stored!r}')
  changes = {'dtype': config.model.dtype, 'unroll': config.model.unroll,
             'remat': config.model.remat, 'lora': section(LoraConfig, config.lora)}
  if place.endswith('.gguf'):
    file = gguf_file.open_gguf(Path(place).expanduser())
    decoder = gguf_file.decoder_config(file, **changes)
    return Backbone(decoder, lambda: gguf_tokenizer.load_tokenizer(file),
                    lambda shardings: gguf_file.load_decoder(file, decoder, shardings, dtype, then))
  directory = huggingface.open_directory(place)
  decoder = families.decoder_config(directory.config, **changes)
  return Backbone(decoder, lambda: huggingface.load_tokenizer(directory.path),
                  lambda shardings: huggingface.load_decoder(directory, decoder, shardings, dtype,
                                                             then))
