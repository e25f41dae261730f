"""Collectives are found in compiled programs: where they stand, how often, how many bytes."""

import jax
import jax.numpy as jnp
import pytest

from jobrec_jax.sharding import MeshConfig, abstract_batch, abstract_replicated, make_mesh
from jobrec_jax.train.hlo import Collective, collectives

# As TPU compilers write it: a gather in three parts, the sum of which a device keeps its part of,
# a loop whose turns stand in its condition alone, and an attribute over several lines.
TPU = '''HloModule jit_f, is_scheduled=true

%start (p.0: bf16[64,128]) -> (bf16[64,128], bf16[256,128]) {
  %p.0 = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=5, dimensions={0}
  ROOT %custom-call.1 = (bf16[64,128]{1,0}, bf16[256,128]{1,0}) custom-call(%all-gather.1)
}

%done (p.1: bf16[64,128]) -> bf16[256,128] {
  %p.1 = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %all-gather.2 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=5
}

%all-reduce-scatter (p.2: f32[8,16]) -> f32[2,16] {
  %p.2 = f32[8,16]{1,0} parameter(0)
  %all-reduce.3 = f32[8,16]{1,0} all-reduce(%p.2), channel_id=6, to_apply=%add
  ROOT %slice.1 = f32[2,16]{1,0} slice(%all-reduce.3), slice={[0:2], [0:16]}
}

%body (p.3: (s32[], bf16[64,128], f32[8,16])) -> (s32[], bf16[64,128], f32[8,16]) {
  %p.3 = (s32[]{:T(128)}, bf16[64,128]{1,0}, f32[8,16]{1,0}) parameter(0)
  %x = bf16[64,128]{1,0} get-tuple-element(%p.3), index=1
  %y = f32[8,16]{1,0} get-tuple-element(%p.3), index=2
  %kernel.1 = bf16[64,128]{1,0} custom-call(%x), frontend_attributes={kernel_metadata={
"xprof_metadata":"{block_q: 256}"
}}, metadata={op_name="splash"}
  %fusion.1 = (bf16[64,128]{1,0}, bf16[256,128]{1,0}) fusion(%x), kind=kCustom, calls=%start
  %fusion.2 = bf16[256,128]{1,0} fusion(%x), kind=kCustom, calls=%done
  %fusion.3 = f32[2,16]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter
  ROOT %tuple.1 = (s32[], bf16[64,128], f32[8,16]) tuple(%p.3, %x, %y)
}

%condition (p.4: (s32[], bf16[64,128], f32[8,16])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(32)
  %p.4 = (s32[]{:T(128)}, bf16[64,128]{1,0}, f32[8,16]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.4), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i, %constant.1), direction=LT
}

ENTRY %main (a: bf16[64,128], b: f32[8,16], c: f32[2,16]) -> f32[8,16] {
  %a = bf16[64,128]{1,0} parameter(0)
  %b = f32[8,16]{1,0} parameter(1)
  %c = f32[2,16]{1,0} parameter(2)
  %tuple.2 = (s32[], bf16[64,128], f32[8,16]) tuple(%a, %b)
  %while.1 = (s32[], bf16[64,128], f32[8,16]) while(%tuple.2), condition=%condition, body=%body
  %start.1 = (f32[2,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%c), channel_id=7, dimensions={0}
  ROOT %all-reduce.4 = (f32[8,16]{1,0}, f32[3]{0}) all-reduce(%b, %b), channel_id=8, to_apply=%add
}
'''


def test_the_text_of_a_tpu_compiler_is_read():
  assert sorted(collectives(TPU)) == [
      Collective('all-gather', ((2, 16), (8, 16)), 8 * 16 * 4, 0, 1),
      Collective('all-gather', ((256, 128),), 256 * 128 * 2, 1, 32),
      Collective('all-reduce', ((8, 16), (3,)), 2 * 8 * 16 * 4, 0, 1),
      Collective('reduce-scatter', ((8, 16),), 8 * 16 * 4, 1, 32)]


@pytest.fixture(scope='module')
def compiled():
  """Five layers on eight devices, their weights divided like the rows: each turn gathers some."""
  mesh = make_mesh(MeshConfig(1, 8, 1))
  struct = jax.ShapeDtypeStruct

  def f(x, layers, bias):
    def layer(x, w):
      return jax.lax.with_sharding_constraint(jnp.tanh(x @ w), rows.sharding), None
    return jax.lax.scan(layer, x, layers)[0].sum() + bias.sum()

  rows = abstract_batch(struct((800, 64), jnp.float32), mesh)
  weights = abstract_batch(struct((64, 64), jnp.float32), mesh)
  stacked = weights.sharding.update(spec=jax.sharding.PartitionSpec(None, ('data', 'fsdp')))
  layers = struct((5, 64, 64), jnp.float32, sharding=stacked)
  bias = abstract_replicated(struct((3,), jnp.float32), mesh)
  return jax.jit(f).lower(rows, layers, bias).compile().as_text()


def test_a_program_of_this_machine_is_read(compiled):
  found = collectives(compiled)
  inside = [c for c in found if c.loops]
  assert [(c.kind, c.bytes, c.loops, c.times) for c in inside] == [
      ('all-gather', 64 * 64 * 4, 1, 5)]
  assert [(c.kind, c.bytes) for c in found if not c.loops] == [('all-reduce', 4)]


def test_a_program_without_any_has_none():
  text = jax.jit(lambda x: x + 1).lower(jnp.ones(3)).compile().as_text()
  assert collectives(text) == [] and collectives('') == []
