"""How experts read records: the tokenizer of a run, its lengths and the components of its words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from jobrec_jax.data.components import Components
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.tokens import BlockEncoder, load_tokenizer
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.pipeline.artefacts import load_params
from jobrec_jax.pipeline.model import ModelSpec, with_lengths
from jobrec_jax.scoring.experts import Experts

TOKENIZER, COMPONENTS = 'tokenizer.json', 'components.safetensors'


class Text(NamedTuple):
  """How records become tokens and numbers; the spec has the lengths of blocks."""

  tokenizer: tokenizers.Tokenizer
  spec: ModelSpec
  components: Components | None
  encoder: Callable[..., BlockEncoder] = BlockEncoder

  def blocks(self, dataset: Dataset) -> BlockEncoder:
    """The dataset as experts read it."""
    return self.encoder(dataset, self.tokenizer, self.spec.tokenizer.form, self.components)

  def experts(self, model: JobRec, params: Any) -> Experts:
    """Experts of these parameters that read so."""
    return Experts(model, params, self.tokenizer, self.spec.tokenizer.form, self.components,
                   self.encoder)


def read_text(folder: Path, spec: ModelSpec) -> Text:
  """What `pipeline.tokenizer.make_tokenizer` left in a folder."""
  components = Components(load_params(folder / COMPONENTS)) if spec.tokenizer.components else None
  return Text(load_tokenizer(folder / TOKENIZER), with_lengths(spec, folder), components)
