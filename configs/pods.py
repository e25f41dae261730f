"""Llama-3-8B, frozen under LoRA, on lists of 50, from one GPU of 80 GB to a pod of TPUs.

  python -m experiments.train_experts --config=configs/pods.py:gpu-8 --workdir=runs/llama
  python -m experiments.compile_ahead --config=configs/pods.py:v5e-16 --topology=v5e:4x4 \\
      --decoder=configs/decoders/llama3_8b.json

Names count chips (Google's v5p-256 has 128 of them). BUILD.md shows what the compiler says of each.
"""

from configs import base

# Name -> TPU topology, mesh (data, fsdp, tensor), lists of each perspective in a step.
PODS = {
  'gpu': ('', (1, 1, 1), 1),
  'gpu-8': ('', (1, 8, 1), 8),
  'v5e-16': ('v5e:4x4', (1, 16, 1), 16),
  'v5e-256': ('v5e:16x16', (1, 256, 1), 256),
  'v5p-128': ('v5p:4x4x8', (1, 128, 1), 128),
  'v6e-256': ('v6e:16x16', (1, 256, 1), 256),
}


def get_config(name: str = 'v5e-16'):
  if name not in PODS:
    raise ValueError(f'configs/pods.py must be followed by one of {", ".join(PODS)}, as in '
                     f'configs/pods.py:v5e-16, got {name!r}')
  _, (data, fsdp, tensor), lists = PODS[name]
  c = base.get_config()
  with c.unlocked():
    c.mesh.data, c.mesh.fsdp, c.mesh.tensor = data, fsdp, tensor
    c.backbone.path = 'meta-llama/Meta-Llama-3-8B'
    c.model.dtype = 'bfloat16'
    c.model.remat = 'full'
    c.model.unroll = 1
    c.tokenizer.candidate, c.tokenizer.job, c.tokenizer.alignment = 160, 64, 14
    c.lists.preference_negatives = c.lists.qualification_negatives = 49
    c.lists.across = 0.0  # lists of every kind must divide by the devices
    c.warm_up.batch = c.cooperative.batch = c.cooperative.qualification_batch = lists
    c.features.batch = lists
  return c
