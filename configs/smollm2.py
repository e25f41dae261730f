"""The road with the real SmolLM2-135M, frozen under LoRA, on the paper's numbers of lists.

  make smollm2
  python -m experiments.quickstart --config=configs/smollm2.py --workdir=runs/smollm2

Attention is factored, so that the evaluation's thousands of pairs cost a dozen tokens each, and the
market has half of the quickstart's candidates: the experts meet 136 preference lists in all.
How long it takes and what comes out: benchmarks/RESULTS.md.
"""

from configs import base


def get_config():
  c = base.get_config()
  with c.unlocked():
    c.backbone.path = '~/.cache/jobrec_jax/models/smollm2-135m-instruct/model.gguf'
    c.backbone.dtype = 'float32'  # CPUs multiply in fp32; bfloat16 where the hardware has it
    c.market.candidates = 300
    c.tokenizer.phrases = 1000
    c.tokenizer.candidate = 88
    c.tokenizer.job = 56
    c.tokenizer.alignment = 10
    c.tokenizer.verdicts = 'symbols'
    c.model.attention = 'factored'
    c.model.unroll = 1
    c.model.remat = 'selective'
    c.lists.preference_negatives = c.lists.qualification_negatives = 3
    # 68 preference lists, then 68 of each perspective, one at a time.
    c.warm_up.batch = c.cooperative.batch = c.cooperative.qualification_batch = 1
    c.warm_up.steps = c.cooperative.steps = 68
    c.warm_up.warmup = c.cooperative.warmup = 10
    c.warm_up.learning_rate = c.cooperative.learning_rate = 5e-4
    c.features.list_length = 25  # a candidate's dozen applications, or half of a list of 50
    c.features.batch = 2
    c.features.states = '~/.cache/jobrec_jax/states'  # several stages score the same entities
    c.policy.lists = 68
    c.policy.held_out = 30
    c.policy.batch = 17
  return c
