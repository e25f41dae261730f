"""Trained experts, and what they say of pairs."""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import tokenizers

from jobrec_jax.data.components import Components
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
from jobrec_jax.models.jobrec import JobRec

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Experts:
  """A model with its parameters and its text encoding.

  Attributes:
    model: the decoder and its experts.
    params: their parameters.
    tokenizer: the one they were trained with.
    form: of the token blocks they were trained with.
    components: of the words that they read as numbers; None for none.
    encoder: what makes blocks of a data set; called as `BlockEncoder`.
  """

  model: JobRec
  params: PyTree
  tokenizer: tokenizers.Tokenizer
  form: BlockFormat
  components: Components | None = None
  encoder: Callable[..., BlockEncoder] = BlockEncoder

  def blocks(self, dataset: Dataset) -> BlockEncoder:
    """The dataset as these experts read it."""
    return self.encoder(dataset, self.tokenizer, self.form, self.components)


@dataclasses.dataclass(frozen=True)
class PairScores:
  """The experts' scores of pairs of any shape [...].

  Attributes:
    preference, qualification: [...] float32 logits s_pref and s_qual.
    lam: [..., K] float32, the policy's lambda at each of its knots; None without a policy.
  """

  preference: np.ndarray
  qualification: np.ndarray
  lam: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class ExpertFeatures:
  """The experts' output for pairs of any leading shape [...].

  Attributes:
    hidden: [..., E, D] float32 readout states.
    preference, qualification: [...] float32 logits s_pref and s_qual.
  """

  hidden: np.ndarray
  preference: np.ndarray
  qualification: np.ndarray

  def __getitem__(self, index) -> 'ExpertFeatures':
    return ExpertFeatures(self.hidden[index], self.preference[index], self.qualification[index])
