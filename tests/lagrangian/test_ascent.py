"""Dual ascent on toy problems whose multipliers are known."""

from functools import partial

from hypothesis import given, settings, strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from scipy import optimize

from jobrec_jax.lagrangian.ascent import dual_ascent, group_violation, pid, relative
from jobrec_jax.lagrangian.augmented import augmented_lagrangian, grow_penalty

A, SLOPE = 1.0, 2.0
# Four problems min_x (x - A)^2 / 2 subject to C(x) = SLOPE x against tau. The stationary point is
# x = A + mu SLOPE, so mu = (tau - SLOPE A) / SLOPE^2.
KINDS = {'eligibility': 'inequality', 'exposure': 'equality'}
TAU = {'eligibility': jnp.array([4.0, 1.0]),  # Missed without the constraint; met without it.
       'exposure': jnp.array([4.0, 1.0])}     # Exceeded without it: mu < 0 pulls C down.
MULTIPLIER = {'eligibility': [0.5, 0.0], 'exposure': [0.5, -0.25]}
X = {'eligibility': [2.0, 1.0], 'exposure': [2.0, 0.5]}
RULES = {
    'plain': 0.05,
    'sgd_schedule': optax.sgd(optax.cosine_decay_schedule(0.1, 3000), momentum=0.5),
    'adam': optax.adam(optax.exponential_decay(0.02, 500, 0.5)),
    'pi': pid(0.05, 0.5),
    'pid': pid(0.05, 0.5, 0.2),
    'nupi': pid(0.04, 0.3, nu=0.5),
    'relative': relative(pid(0.04, 0.3)),
}


def solve(rule, tau=TAU, constraint=KINDS, steps=3000, **options):
  """Simultaneous descent-ascent; returns x, the state and the course of the multipliers."""
  init, update = dual_ascent(rule, constraint=constraint, **options)

  def step(carry, _):
    x, state = carry
    moved = jax.tree.map(lambda x, mu: x - 0.1 * (x - A - mu * SLOPE), x, state.multiplier)
    violation = jax.tree.map(lambda t, x: t - SLOPE * x, tau, x)
    return (moved, update(state, violation=violation)), state.multiplier

  start = jax.tree.map(lambda t: jnp.zeros(jnp.shape(t)), tau)
  (x, state), course = jax.lax.scan(step, (start, init(start)), None, length=steps)
  return x, state, course


def assert_tree_close(found, expected, **tolerance):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(partial(np.testing.assert_allclose, **tolerance), found, expected)


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize('name, options', [
    *((name, {}) for name in RULES), ('plain', {'every': 3}), ('pi', {'every': 2, 'delay': 50}),
    ('adam', {'delay': 100}), ('plain', {'cap': {'eligibility': None, 'exposure': 0.6}})])
def test_reaches_the_known_multipliers(name, options):
  x, state, _ = solve(RULES[name], **options)
  known = {k: np.array(v) for k, v in MULTIPLIER.items()}
  assert_tree_close(state.multiplier, known, atol=1e-3)
  assert_tree_close(x, {k: np.array(v) for k, v in X.items()}, atol=1e-3)
  assert state.step == 3000 and state.step.dtype == jnp.int32


def test_augmented_lagrangian_reaches_the_known_multipliers():
  start = jax.tree.map(jnp.zeros_like, TAU)

  def violation(x):
    return jax.tree.map(lambda t, x: t - SLOPE * x, TAU, x)

  def loss(x, mu, rho):
    preference = sum(jnp.sum((leaf - A)**2) / 2 for leaf in jax.tree.leaves(x))
    return preference + augmented_lagrangian(mu, violation=violation(x), penalty=rho,
                                             constraint=KINDS)

  def round_(carry, _):
    x, mu, rho, previous = carry
    x = jax.lax.fori_loop(0, 300, lambda _, x: jax.tree.map(
        lambda x, g: x - 0.02 * g, x, jax.grad(loss)(x, mu, rho)), x)
    init, update = dual_ascent(rho, constraint=KINDS)
    state = update(init(mu), violation=violation(x))
    slack = jnp.maximum(violation(x)['eligibility'], -mu['eligibility'] / rho)
    worst = jnp.max(jnp.abs(jnp.concatenate([slack, violation(x)['exposure']])))
    rho = grow_penalty(rho, violation=worst, previous=previous, factor=2., shrink=0.25, most=8.)
    return (x, state.multiplier, rho, worst), rho

  (x, mu, _, _), penalties = jax.lax.scan(
      round_, (start, start, jnp.float32(0.5), jnp.float32(np.inf)), None, length=12)
  assert_tree_close(mu, {k: np.array(v) for k, v in MULTIPLIER.items()}, atol=1e-3)
  assert_tree_close(x, {k: np.array(v) for k, v in X.items()}, atol=1e-3)
  assert 0.5 < penalties[-1] <= 8, 'twelve rounds at 0.5 would need no growth'


def test_augmented_terms_and_penalties_in_closed_form():
  mu, v, rho = jnp.array([0., 0.5, 0.5, 2.]), jnp.array([-1., -0.1, -3., 0.7]), 2.
  term = jax.vmap(lambda mu, v: augmented_lagrangian(mu, violation=v, penalty=rho,
                                                     constraint='inequality'))
  np.testing.assert_allclose(term(mu, v), (np.maximum(0, mu + rho * v)**2 - mu**2) / (2 * rho),
                             rtol=1e-6)
  slope = jax.vmap(jax.grad(lambda v, mu: augmented_lagrangian(
      mu, violation=v, penalty=rho, constraint='inequality')))(v, mu)
  stepped = dual_ascent(rho, constraint='inequality')
  np.testing.assert_allclose(slope, stepped.update(stepped.init(mu), violation=v).multiplier,
                             atol=1e-6)
  equality = augmented_lagrangian(mu, violation=v, penalty=rho, constraint='equality')
  np.testing.assert_allclose(equality, np.sum(mu * v + rho / 2 * v**2), rtol=1e-6)
  grown = grow_penalty(jnp.array([1., 1., 1., 9.]), violation=jnp.array([.1, -.5, .25, 1.]),
                       previous=jnp.array([1., -1., 1., 1.]), factor=4., shrink=.25, most=10.)
  assert grown.tolist() == [1, 4, 1, 10]
  for factor, shrink, match in ((1., .5, 'factor must'), (2., 1., 'shrink must')):
    with pytest.raises(ValueError, match=match):
      grow_penalty(1., violation=1., previous=1., factor=factor, shrink=shrink, most=2.)
  with pytest.raises(ValueError, match='constraint must be inequality or equality'):
    augmented_lagrangian(mu, violation=v, penalty=rho, constraint='at_least')


def settled_after(course, multiplier):
  """[...] the first step from which on the [..., T] course stays within 1% of the multiplier."""
  far = np.abs(np.asarray(course) - multiplier) > 0.01 * multiplier
  steps = far.shape[-1]
  return np.where(far.any(-1), steps - np.argmax(far[..., ::-1], axis=-1), 0)


def test_pi_settles_sooner_and_overshoots_less_than_plain_ascent():
  problem = {'tau': jnp.float32(4.0), 'constraint': 'inequality', 'steps': 1500}
  course = {kp: np.asarray(solve(pid(0.05, kp), **problem)[2]) for kp in (0., 0.5)}
  plain, pi = (settled_after(course[kp], 0.5) for kp in (0., 0.5))
  over_plain, over_pi = (course[kp].max() / 0.5 - 1 for kp in (0., 0.5))
  # Not for want of a good step: the best of 40 plain ones, found under one vmap.
  etas = jnp.geomspace(1e-3, 0.3, 40)
  best = settled_after(jax.vmap(lambda eta: solve(eta, **problem)[2])(etas), 0.5).min()
  message = (f'settled after {pi} steps (PI), {plain} (plain, same ki), {best} (plain, best step); '
             f'overshoot {over_pi:.2%} and {over_plain:.2%}')
  print(message)
  assert pi < plain / 2.5 and pi < 0.7 * best, message
  assert over_plain > 1 and over_pi < 0.02, message


@pytest.fixture(scope='module')
def solve_qp():
  """Jitted (Q, c, A, b) -> x, mu of min x'Qx/2 + c'x, A[0] x >= b[0], A[1] x = b[1]."""
  @jax.jit
  def run(q, c, a, b):
    spread = jnp.linalg.norm(a @ jnp.linalg.solve(q, a.T), 2)
    init, update = dual_ascent(pid(0.05 / spread, 0.5 / spread), constraint=['inequality',
                                                                             'equality'])
    def step(carry, _):
      x, state = carry
      moved = x - 0.2 * (q @ x + c - a.T @ jnp.stack(state.multiplier))
      return (moved, update(state, violation=list(b - a @ x))), None

    (x, state), _ = jax.lax.scan(step, (jnp.zeros(3), init([(), ()])), None, length=6000)
    return x, jnp.stack(state.multiplier)

  return run


def random_qp(seed):
  rng = np.random.default_rng(seed)
  basis, _ = np.linalg.qr(rng.normal(size=(3, 3)))
  q = basis @ np.diag(rng.uniform(1, 3, 3)) @ basis.T
  a = np.ones((2, 3))
  while np.linalg.svd(a, compute_uv=False)[-1] < 0.5:  # Parallel constraints may contradict.
    a = rng.normal(size=(2, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
  return q, rng.normal(size=3), a, rng.normal(size=2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_kkt_residuals_of_random_programs(solve_qp, seed):
  q, c, a, b = random_qp(seed)
  x, mu = map(np.asarray, solve_qp(q, c, a, b))
  slack = a @ x - b
  residuals = {'stationarity': np.abs(q @ x + c - a.T @ mu).max(),
               'inequality': max(0, -slack[0]), 'equality': abs(slack[1]),
               'sign': max(0, -mu[0]), 'complementarity': abs(mu[0] * slack[0])}
  assert all(r < 1e-3 for r in residuals.values()), residuals


def test_programs_against_scipy(solve_qp):
  bound = set()
  for seed in range(8):
    q, c, a, b = random_qp(seed)
    x, mu = solve_qp(q, c, a, b)
    reference = optimize.minimize(
        lambda x, q=q, c=c: x @ q @ x / 2 + c @ x, np.zeros(3), method='SLSQP',
        jac=lambda x, q=q, c=c: q @ x + c, options={'ftol': 1e-12}, constraints=[
            {'type': 'ineq', 'fun': lambda x, a=a, b=b: a[0] @ x - b[0]},
            {'type': 'eq', 'fun': lambda x, a=a, b=b: a[1] @ x - b[1]}])
    assert reference.success
    np.testing.assert_allclose(x, reference.x, atol=1e-3)
    bound.add(bool(mu[0] > 0))
  assert bound == {True, False}


@pytest.mark.parametrize('rule', [0.5, pid(0.5, 0.5), optax.sgd(0.3, momentum=0.5)])
def test_entropic_linear_program_against_scipy(rule):
  """max_pi u'pi + T H(pi) on the simplex, two requirements q pi >= tau: pi = softmax(... / T)."""
  rng = np.random.default_rng(1)
  temperature, u, q = 0.5, rng.normal(size=6), rng.uniform(size=(2, 6))
  tau = np.array([0.7, 0.2]) @ np.stack([q.max(1), q.min(1)]) * 0.9
  init, update = dual_ascent(rule, constraint='inequality')

  def pi(mu):
    return jax.nn.softmax((u + mu @ q) / temperature)

  state, _ = jax.lax.scan(
      lambda s, _: (update(s, violation=tau - q @ pi(s.multiplier)), None), init((2,)), None,
      length=2000)
  primal = optimize.minimize(
      lambda p: -u @ p + temperature * np.sum(p * np.log(p)), np.full(6, 1 / 6), method='SLSQP',
      bounds=[(1e-9, 1)] * 6, options={'ftol': 1e-14, 'maxiter': 500}, constraints=[
          {'type': 'eq', 'fun': lambda p: p.sum() - 1},
          {'type': 'ineq', 'fun': lambda p: q @ p - tau}])
  dual = optimize.minimize(
      lambda mu: temperature * np.logaddexp.reduce((u + mu @ q) / temperature) - mu @ tau,
      np.zeros(2), method='L-BFGS-B', bounds=[(0, None)] * 2, options={'ftol': 1e-15})
  assert primal.success and dual.x.max() > 0.1
  np.testing.assert_allclose(pi(state.multiplier), primal.x, atol=1e-3)
  np.testing.assert_allclose(state.multiplier, dual.x, atol=1e-3)


VIOLATIONS = {
    'eligibility': jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32),
    'exposure': jnp.asarray(np.random.default_rng(1).normal(size=20), jnp.float32)}


def run(update, state, violations):
  for t in range(len(violations['exposure'])):
    state = update(state, violation=jax.tree.map(lambda v, t=t: v[t], violations))
  return state


def first_of(violations, steps):
  return jax.tree.map(lambda v: v[:steps], violations)


@pytest.mark.parametrize('name', RULES)
def test_jit_scan_loop_and_a_restored_checkpoint_agree(name, tmp_path):
  init, update = dual_ascent(RULES[name], constraint=KINDS, cap=5., every=2, delay=3)
  start = init({'eligibility': (3,), 'exposure': ()})
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(start))
  jitted = jax.jit(update)
  whole = run(jitted, start, VIOLATIONS)
  assert whole.step == 20 and whole.multiplier['exposure'] != 0
  few = first_of(VIOLATIONS, 6)
  assert_tree_close(run(update, start, few), run(jitted, start, few), rtol=1e-5, atol=1e-6)
  scanned, _ = jax.lax.scan(lambda s, v: (update(s, violation=v), None), start, VIOLATIONS)
  assert_tree_close(scanned, whole, rtol=1e-5, atol=1e-6)

  half = run(jitted, start, first_of(VIOLATIONS, 10))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'duals', half)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'duals',
                                    jax.tree.map(ocp.utils.to_shape_dtype_struct, half))
  assert_same_bits(restored, half)
  assert_same_bits(run(jitted, restored, jax.tree.map(lambda v: v[10:], VIOLATIONS)), whole)


def test_vmap_over_rates_and_gains_equals_a_loop():
  def last(ki, kp, nu, **options):
    init, update = dual_ascent(pid(ki, kp, nu=nu), constraint=KINDS, **options)
    start = init({'eligibility': (3,), 'exposure': ()})
    state, _ = jax.lax.scan(lambda s, v: (update(s, violation=v), None), start, VIOLATIONS)
    return state.multiplier

  gains = jnp.array([[.1, 0., 0.], [.2, .5, 0.], [.3, .2, .9]])
  for options in ({}, {'every': 3, 'delay': 2}):
    many = jax.jit(jax.vmap(partial(last, **options)))(*gains.T)
    one = [last(*map(float, g), **options) for g in gains]
    assert_tree_close(many, jax.tree.map(lambda *m: jnp.stack(m), *one), rtol=1e-5, atol=1e-6)
  first = jax.vmap(lambda eta: solve(eta, jnp.float32(4.), 'inequality', 1)[1].multiplier)(
      gains[:, 0])
  np.testing.assert_allclose(first, 4 * gains[:, 0], rtol=1e-6)


def test_pid_against_its_positional_form():
  """mu = ki sum(e) + kp (xi_t - e_0) + kd (xi_t - xi_{t-1}); the first step is plain ascent's."""
  ki, kp, kd, nu = .1, .7, .3, .6
  e = np.random.default_rng(2).normal(size=40)
  xi = np.empty(41)
  xi[0] = e[0]
  for t in range(40):
    xi[t + 1] = nu * xi[t] + (1 - nu) * e[t]
  expected = ki * np.cumsum(e) + kp * (xi[1:] - e[0]) + kd * np.diff(xi)
  init, update = dual_ascent(pid(ki, kp, kd, nu), constraint='equality')
  _, course = jax.lax.scan(lambda s, v: (update(s, violation=v),) * 2, init(), jnp.float32(e))
  np.testing.assert_allclose(course.multiplier, expected, atol=1e-5)
  np.testing.assert_allclose(course.multiplier[0], ki * e[0], rtol=1e-6)


def test_relative_moves_grow_with_the_multiplier():
  init, update = dual_ascent(relative(pid(0.1, 0.5)), constraint='equality')
  start = init(jnp.array([0., 3., -4.]))
  state = update(start, violation=jnp.array([1., 1., -2.]))
  np.testing.assert_allclose(state.multiplier, [0.1, 3.4, -5.], rtol=1e-6)
  state = update(state, violation=jnp.array([1., 2., -2.]))
  np.testing.assert_allclose(state.multiplier, [0.21, 3.4 + 4.4 * 0.7, -6.2], rtol=1e-6)


def test_every_moves_once_on_the_mean_and_delay_holds_all():
  init, update = dual_ascent(0.5, constraint='equality', every=3, delay=2)
  state, course = init(), []
  for v in (9., -9., 1., 2., 6., 1., 1., 4.):
    state = update(state, violation=jnp.float32(v))
    course.append(float(state.multiplier))
  np.testing.assert_allclose(course, [0, 0, 0, 0, 1.5, 1.5, 1.5, 2.5], rtol=1e-6)
  assert state.step == 8
  init, update = dual_ascent(optax.adam(0.1), constraint='equality', delay=1)
  held = update(init(), violation=jnp.float32(3.))
  assert held.multiplier == 0 and optax.tree.get(held, 'mu') == 0 and held.step == 1


def test_sign_projection_cap_and_start():
  init, update = dual_ascent(0.5, constraint='inequality', cap=1.2)
  state = update(init((2,)), violation=jnp.array([1.0, -1.0]))
  assert state.multiplier.tolist() == [0.5, 0.0]
  for _ in range(3):
    state = update(state, violation=jnp.array([1.0, 1.0]))
  np.testing.assert_allclose(state.multiplier, [1.2, 1.2])
  init, update = dual_ascent(0.5, constraint='equality', cap=1.2)
  state = init()
  for _ in range(5):
    state = update(state, violation=jnp.bfloat16(-1))
  np.testing.assert_allclose(state.multiplier, -1.2)
  assert state.multiplier.dtype == jnp.float32
  started = dual_ascent(0.1, constraint={'a': 'inequality', 'b': 'equality'},
                        cap={'a': 2., 'b': None}).init({'a': np.array([-1., 1., 3.]), 'b': (2,)})
  assert started.multiplier['a'].tolist() == [0, 1, 2]
  assert started.multiplier['b'].tolist() == [0, 0]


@pytest.mark.parametrize('rule', ['plain', 'adam', 'nupi', 'relative'])
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_violation_that_is_no_number_is_held_and_counted(rule, bad):
  """Its multiplier stays for that call; the others move, and it moves again with the next."""
  init, moved = dual_ascent(RULES[rule], constraint='inequality')
  update = jax.jit(lambda state, violation: moved(state, violation=violation))
  state = update(init((2,)), jnp.array([0.4, 0.4]))
  held = update(state, jnp.array([bad, 0.4]))
  assert held.multiplier[0] == state.multiplier[0] and held.multiplier[1] > state.multiplier[1]
  after = update(held, jnp.array([0.4, 0.4]))
  assert after.multiplier[0] > held.multiplier[0] and np.isfinite(after.multiplier).all()
  assert (int(state.held), int(held.held), int(after.held), int(after.step)) == (0, 1, 1, 3)


def test_group_violation():
  values, groups = jnp.array([.2, .4, .9, 7., 5.]), jnp.array([0, 0, 2, -1, 4])
  v = jax.jit(group_violation, static_argnums=3)(values, groups, 0.5, 4)
  np.testing.assert_allclose(v, [0.2, 0, -0.4, 0], atol=1e-6)
  v = group_violation(values, groups, jnp.array([.5, .5, 1., .5]), 4)
  np.testing.assert_allclose(v, [0.2, 0, 0.1, 0], atol=1e-6)
  slope = jax.grad(lambda x: group_violation(x, groups, 0.5, 4).sum())(values)
  np.testing.assert_allclose(slope, [-.5, -.5, -1, 0, 0])
  init, update = dual_ascent(1., constraint='inequality')
  assert update(init((4,)), violation=v).multiplier.shape == (4,)


def test_refuses():
  with pytest.raises(ValueError, match='constraint must be inequality or equality'):
    dual_ascent(0.1, constraint={'a': 'equality', 'b': 'at_least'})
  for eta in (0, -0.1, float('nan'), float('inf')):
    with pytest.raises(ValueError, match='rule must be a step above 0'):
      dual_ascent(eta, constraint='equality')
    with pytest.raises(ValueError, match='ki must be above 0'):
      pid(eta)
  with pytest.raises(ValueError, match='cap must be above 0'):
    dual_ascent(0.1, constraint='equality', cap={'a': 0})
  for option, value in (('every', 0), ('delay', -1)):
    with pytest.raises(ValueError, match=f'{option} must be at least'):
      dual_ascent(0.1, constraint='equality', **{option: value})
  for gains, match in (({'kp': -1.}, 'kp must be'), ({'kd': -1.}, 'kd must be'),
                       ({'nu': 1.}, r'nu must be in \[0, 1\)')):
    with pytest.raises(ValueError, match=match):
      pid(0.1, **gains)
  init, update = dual_ascent(0.1, constraint=KINDS)
  with pytest.raises(ValueError, match='constraint must be one value or a pytree prefix'):
    init({'eligibility': (), 'other': ()})
  with pytest.raises(ValueError, match='violation must have the shapes of the multipliers'):
    update(init({'eligibility': (2,), 'exposure': ()}), violation=TAU)
