"""The road: every stage of a run and what each stands on. The one place that wires them."""

import dataclasses
from pathlib import Path
from typing import Any

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.pipeline import data, evaluate, experts, policy, rivals
from jobrec_jax.pipeline.artefacts import load_calibration
from jobrec_jax.pipeline.model import ModelSpec
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage
