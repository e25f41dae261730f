"""A run so small that little is learnt, with nothing at a value that hides a mistake."""

from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import build

CHANGES = {
    'seed': 3, 'data': {'seed': 5, 'shares': (0.4, 0.2, 0.2, 0.2)}, 'log_every': 10,
    'market': {'candidates': 120, 'jobs': 20, 'rho_x': -0.3},
    'tokenizer': {'vocab_size': 600, 'candidate': 64, 'job': 40, 'alignment': 20,
                  'components': 16},
    'model': {'width': 32, 'heads': 2, 'kv_heads': 1, 'head_width': 16, 'layers': 1,
              'mlp_width': 64, 'head_widths': (32,)},
    'lists': {'preference_negatives': 3, 'qualification_negatives': 4},
    'warm_up': {'steps': 100, 'warmup': 5, 'batch': 8, 'learning_rate': 4e-3},
    'cooperative': {'steps': 160, 'warmup': 2, 'batch': 8, 'qualification_batch': 8,
                    'learning_rate': 4e-3, 'patience': 0},  # so little betters no start
    'experts': {'ips_clip': 3.0, 'beta': 0.7},
    'features': {'list_length': 5, 'batch': 8},
    # Lambda alone must keep the requirement, so that there is something to learn.
    'policy': {'start': 'preference', 'list_length': 8, 'lists': 20, 'held_out': 12, 'epochs': 60,
               'batch': 10, 'grid': 4, 'width': 8, 'knots': 5, 'temperature': 0.6},
    'sweep': {'seeds': (0, 1)},
    'evaluate': {'level': 0.8},
    'writer': {'steps': 60, 'warmup': 2, 'batch': 4, 'list_length': 2, 'lists': 40, 'rank': 2,
               'learning_rate': 1e-2, 'patience': 0},
    'explain': {'pairs': 24, 'level': 0.8},
    'certify': {'alpha': 0.7, 'k': 2, 'points': 4, 'population': 120, 'draws': 20, 'lists': 40},
}


def tiny_settings(**sections) -> Settings:
  """The tiny settings, some sections changed further."""
  changes = {k: dict(v) if isinstance(v, dict) else v for k, v in CHANGES.items()}
  for name, values in sections.items():
    changes[name] = changes.get(name, {}) | values if isinstance(values, dict) else values
  return build(Settings, changes)
