"""Every setting, with its default and what it does. Other configs change some of these keys.

  python -m experiments.train_experts --config=configs/base.py --workdir=runs/mine
  python -m experiments.train_experts --config=configs/base.py --config.experts.beta=0.5 ...
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0  # root of every random stream
  c.log_every = 10  # steps between two lines of progress and of metrics.jsonl
  c.save_seconds = 30.0  # an interruption loses at most this much training

  c.mesh = ml_collections.ConfigDict()
  c.mesh.data = -1  # devices over which lists are divided; -1: all that are left
  c.mesh.fsdp = 1  # devices over which lists and weights are divided
  c.mesh.tensor = 1  # devices over which heads, MLP and vocabulary are divided

  c.data = ml_collections.ConfigDict()
  # 'simulated'; 'jobrec_synth' (tensorflow-datasets); or files: 'jsonl', 'published', 'recbole'
  c.data.source = 'simulated'
  c.data.folder = ''  # where the files lie, or tensorflow-datasets keeps its data
  c.data.size = 'tiny'  # 'jobrec_synth': 'tiny', 'paper' or 'large'
  c.data.prefix = 'jobrec'  # 'recbole': PREFIX.inter, PREFIX.user, PREFIX.item
  c.data.shares = (0.5, 0.1, 0.15, 0.25)  # candidates in train, validation, calibration, test
  c.data.cold_jobs = 0.2  # share of jobs that only the test sees
  c.data.warm_test = 0.1  # share of training candidates' interactions that the test keeps
  c.data.drop_shared_negatives = False  # leave negatives that several splits hold in one of them
  c.data.allow_unknown_users = False  # 'published': keep labelled users that have no record
  c.data.known_faults = ()  # audit errors that do not stop the run, by name

  c.market = ml_collections.ConfigDict()
  c.market.domain = 'students'  # a module of data/market/domains; for files, their schema
  c.market.candidates = 600  # how many candidates
  c.market.jobs = 100  # how many jobs
  c.market.rho_x = 0.2  # correlation of logit P and logit Q over uniform pairs
  c.market.rho_e = 0.0  # correlation of the latent draws given attributes (hidden confounding)
  c.market.exposure = 0.7  # mean probability that a pair is shown
  c.market.logging = 'uniform'  # logging policy: 'uniform', 'popularity' or 'recommender'
  c.market.recommender_quality = 0.5  # correlation of the recommender's score with logit P
  c.market.self_censoring = 0.3  # how much doubt about eligibility keeps candidates from applying
  c.market.screening_noise = 0.02  # probability that screening reports the opposite
  c.market.missing = 0.02  # share of blank optional attributes
  c.market.preference_scale = 2.5  # standard deviation of logit P
  c.market.preference_mean = -1.8  # mean of logit P
  c.market.qualification_scale = 2.5  # standard deviation of logit Q
  c.market.qualification_mean = -0.8  # mean of logit Q
  c.market.verbosity = 1  # sentences of a narrative that say nothing of taste
  c.market.taste = 1.2  # weight in logit P of the tastes that only narratives show
  c.market.evidence = 1.2  # weight in logit Q of the evidence that only projects show

  c.tokenizer = ml_collections.ConfigDict()
  c.tokenizer.vocab_size = 4096  # upper bound of the byte-level BPE vocabulary
  c.tokenizer.candidate = 64  # static length of the candidate block, tokens
  c.tokenizer.job = 40  # static length of the job block, tokens
  c.tokenizer.alignment = 20  # static length of the alignment block, tokens
  # What the alignment block consists of: 'words'; 'symbols' (+ - ?), a token each; or 'vectors',
  # learned for each field's verdicts, in the readouts: no tokens, and `alignment` counts fields.
  c.tokenizer.verdicts = 'words'

  # A pretrained tokenizer's new tokens, at most: phrases that the training text repeats, each with
  # a learned embedding of its own that starts as the mean of its words'. 0: none.
  c.tokenizer.phrases = 0

  c.backbone = ml_collections.ConfigDict()
  # '': a decoder of the sizes below and a tokenizer, both trained from scratch. Else a pretrained
  # one, frozen under LoRA adapters: a .gguf file, a Hugging Face directory or a hub name.
  c.backbone.path = ''
  # of frozen weights: 'bfloat16' or 'float32'; or quantised (QLoRA): 'int8', 'nf4'
  c.backbone.dtype = 'bfloat16'

  c.lora = ml_collections.ConfigDict()  # adapters of a pretrained backbone
  c.lora.rank = 16  # R
  c.lora.alpha = 32.0  # updates are scaled by alpha / R
  c.lora.dropout = 0.1  # dropout on the adapters' input
  c.lora.targets = ('q', 'k', 'v', 'o')  # projections; also 'gate', 'up', 'down'
  c.lora.per_expert = False  # adapters for each expert, at twice the cost; else shared
  c.lora.rank_stabilised = False  # scale by alpha / sqrt(R) (rsLoRA)

  c.model = ml_collections.ConfigDict()  # sizes: of a decoder that is trained from scratch
  c.model.width = 64  # D
  c.model.layers = 2  # decoder layers
  c.model.heads = 4  # query heads
  c.model.kv_heads = 2  # key and value heads (grouped-query attention)
  c.model.head_width = 16  # H
  c.model.mlp_width = 192  # SwiGLU width
  c.model.rope_base = 10000.0  # rotary base
  c.model.rms_epsilon = 1e-5  # of RMSNorm
  c.model.dtype = 'float32'  # of activations: 'float32' or 'bfloat16'
  c.model.unroll = 2  # layers in one step of the layer loop: more is faster on CPU, compiles longer
  c.model.remat = 'none'  # what backward computes again: 'none', 'selective' or 'full'
  c.model.attention = 'exact'  # of lists: 'exact', or 'factored': entities are read alone, once
  c.model.head_widths = (512, 256)  # hidden layers of each expert's head
  c.model.head_dropout = 0.1  # dropout in the experts' heads

  c.lists = ml_collections.ConfigDict()
  c.lists.preference_negatives = 7  # n of a candidate's training list
  c.lists.preference_policy = 'exposed'  # 'exposed': shown and not applied to; or 'uniform'
  c.lists.qualification_negatives = 7  # n of a job's training list, rejected applicants

  c.experts = ml_collections.ConfigDict()
  c.experts.beta = 1.0  # weight of the cross-entropy in the qualification loss; positive
  c.experts.task_weights = 'uncertainty'  # 'uncertainty', 'softmax' (published) or 'fixed'
  c.experts.fixed_weights = (0.5, 0.5)  # preference, qualification; for 'fixed'
  c.experts.censoring = 'ips'  # 'ips': reweight applicants by estimated propensity; or 'none'
  c.experts.ips_clip = 10.0  # greatest weight of an applicant, in means

  for stage, steps in (('warm_up', 300), ('cooperative', 350)):  # stages 1A and 1B
    s = c[stage] = ml_collections.ConfigDict()
    s.batch = 16  # preference lists in a step
    s.steps = steps  # updates
    s.learning_rate = 1.5e-3  # peak of AdamW's warm-up and cosine decay
    s.warmup = 30  # updates until the peak
    s.weight_decay = 0.1  # decoupled, on kernels
    s.clip = 1.0  # greatest global norm of a gradient
  c.cooperative.qualification_batch = 8  # qualification lists in a step of stage 1B

  c.features = ml_collections.ConfigDict()
  c.features.list_length = 20  # jobs in a list when pairs are scored
  c.features.batch = 16  # lists scored at a time
  c.features.states = ''  # 'factored' attention: a folder that keeps block states; '': none

  c.policy = ml_collections.ConfigDict()
  c.policy.lists = 300  # N: stage 2's lists
  c.policy.held_out = 150  # lists of the same size and sampling, of test candidates
  c.policy.list_length = 50  # J: jobs in a list, one of them applied to
  c.policy.taus = ()  # the requirements to report; empty: a grid over what is attainable
  c.policy.grid = 6  # how many tau the grid has
  c.policy.knots = 12  # requirements that the head is trained for; between them it is linear
  # 'expected_score': the frozen scores and entropy, no label; or 'info_nce' (published)
  c.policy.objective = 'expected_score'
  c.policy.constraint = 'inequality'  # 'inequality': eligibility at least tau; or 'equality'
  c.policy.epochs = 150  # passes over the lists
  c.policy.batch = 50  # lists in a step
  c.policy.learning_rate = 2e-3  # of AdamW, decayed along a cosine
  c.policy.dual_learning_rate = 0.3  # eta of the multipliers, their integral gain
  c.policy.dual_kp = 0.0  # proportional gain: damps oscillation
  c.policy.dual_kd = 0.0  # derivative gain
  c.policy.dual_nu = 0.0  # smoothing of what both see, in [0, 1)
  c.policy.temperature = 1.0  # T of the softmax over a list
  c.policy.clip = 1.0  # greatest global norm of a gradient
  c.policy.width = 64  # hidden width of the policy head
  c.policy.bound = 10.0  # lambda lies in [-bound, bound]; at 5 it stops the highest requirements

  c.sweep = ml_collections.ConfigDict()  # align_policy: heads trained one for each tau, to compare
  c.sweep.seeds = (0,)  # of initial weights and order
  c.sweep.learning_rates = ()  # of AdamW; empty: the policy's
  c.sweep.rules = ()  # gains (ki, kp, kd, nu) of the multiplier; empty: the policy's

  c.export = ml_collections.ConfigDict()
  c.export.format = 'jsonl'  # 'jsonl', 'published' (CSV) or 'recbole' (atomic files)
  c.export.workers = 1  # processes that draw a simulated market; the files do not depend on it

  c.evaluate = ml_collections.ConfigDict()
  c.evaluate.resamples = 2000  # bootstrap resamples
  c.evaluate.level = 0.95  # of every interval

  c.certify = ml_collections.ConfigDict()
  c.certify.alpha = 0.5  # greatest share of ineligible jobs that a certificate allows
  c.certify.delta = 0.1  # probability that a certificate is wrong
  c.certify.k = 5  # jobs recommended to a candidate, certified beside the whole distribution
  c.certify.points = 20  # values of tau that are tested, from the policy's first knot to its last
  c.certify.population = 4000  # fresh candidates on whom certificates are checked
  c.certify.draws = 200  # calibration sets that are drawn from them
  c.certify.lists = 200  # lists in each of these sets, one a candidate

  c.refine = ml_collections.ConfigDict()
  c.refine.perspectives = ('preference', 'qualification')  # whose labels are refined
  c.refine.pairs = 60_000  # simulated data: how many uniform pairs the machine labels, at most
  c.refine.flip = 0.15  # simulated data: share of machine labels that are flipped
  c.refine.budget = 0.1  # share of labelled pairs that are reviewed
  c.refine.verdicts = 3  # experts who judge each reviewed pair
  c.refine.reviewers = 'simulated'  # experts with the rates below, or 'people': through files
  c.refine.error_rates = (0.05, 0.1, 0.1, 0.15, 0.2)  # of each simulated expert
  c.refine.people = ('reviewer-1', 'reviewer-2', 'reviewer-3')  # names, for 'people'
  return c.lock()
