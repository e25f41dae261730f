"""What the words and letters of a report mean."""

RUN = (
    ('P, Q', 'The truths of a simulated market: the probability that a candidate wants a job, and '
     'that its employer accepts the candidate.'),
    ('s_pref', "The preference expert's logit of a pair: how much the candidate wants the job."),
    ('p_qual, z_qual', 'The calibrated probability that the candidate is qualified, and its '
     'logit.'),
    ('C', 'Eligibility of a list: the mean of p_qual under the policy, C = Σ π p_qual. True C has '
     'Q in place of p_qual.'),
    ('τ (tau)', 'The requirement: the C asked for, on average over lists. At 0 nothing is asked.'),
    ('μ (mu)', 'The multiplier of a requirement: the price of a unit of C, alike for all pairs. '
     'In training it rises while C is below τ.'),
    ('λ (lambda)', 'What stage 2 learns of a pair beside μ: the policy ranks by '
     's_pref + μ p_qual + λ z_qual, with λ = 0 where that is the best.'),
    ('knot', 'A τ that the policy was made for; between knots λ is linear in τ.'),
    ('J', 'The objective of stage 2, in nats: what the policy keeps of preference.'),
    ('exact dual', 'The best policy for the same frozen scores, solved list by list; no policy '
     'lies above it.'),
    ("truth's bound", 'A ranking by P + μ Q: what one who knows both truths reaches.'),
    ('ceiling', 'A system that ranks by the truth itself.'),
    ('canary', 'Scores that know nothing of candidates and jobs, such as a hash of their names. '
     'One that beats chance tells of a leak.'),
    ('chance', 'A ranking in random order, in expectation.'),
    ('NDCG@5', 'Quality of the first five places, 1 for the best order possible; a place counts '
     'less the lower it is.'),
    ('recall@5, MRR', 'The share of all relevant items among the first five; the mean of 1 / the '
     'first relevant place.'),
    ('eligibility@5', 'The mean Q of the five jobs recommended. Violation@5 is the share of them '
     'that is not eligible.'),
    ('true preference@5', 'The mean P of the five jobs recommended.'),
    ('of the way', 'Between the true eligibility@5 of who ranks by P, 0%, and of who ranks by Q, '
     '100%: where policies are compared whose τ are not the same.'),
    ('cold candidates', 'Candidates that training has not seen, with jobs that it has. Both cold: '
     'the jobs are new as well.'),
    ('held-out lists', "Lists of the size and sampling of stage 2's, of cold candidates."),
    ('jobs of a candidate, candidates of a job', 'The two axes of a ranking. Preference is ranked '
     'by the first, qualification by the second, and each also by the other, on the same pairs.'),
    ('plug-in', "A ranking by one parameter on the experts' probabilities, which nobody trains: "
     'p_pref + μ p_qual, or p_pref of those first that pass a threshold or the rules. p_pref is '
     's_pref as a probability.'),
    ('loss of true preference@5', "What is missing to the truth's bound where both are as eligible "
     'as the policy is at its τ, on average over τ.'),
    ('expected surplus@5', 'What a recommended job is worth to the candidate on average over the '
     'five: the gain of taking it, log(1 + exp(logit P)), times the chance Q of being accepted. '
     'The regret is what is missing to a ranking by it.'),
    ('Spearman within a candidate', 'The rank correlation with the truth over the jobs of one '
     'candidate, 1 for the right order; the mean over candidates. Alike within a job.'),
    ('error of logit, variance', 'How the error of a logit is spread: over what all jobs of a '
     "candidate share, what all candidates of a job share, and the pair's own."),
    ('coverage, Gini, popularity', 'Of the five recommended: the share of jobs that somebody is '
     'shown; how uneven jobs are shown, 0 for evenly; the mean share of applications in training.'),
    ('de-conflation', "Each expert learns its own truth and nothing of the other's: its partial "
     'correlation with the other, given its own, is 0. An expert that knows its own in part only '
     'has one by attenuation; then P and Q given the score correlate at 0, and below 0 only where '
     'it leans on the other more than its own truth does. Preference is centred within candidates '
     'first, for a function of the candidate changes no ranking of jobs.'),
    ('calibration error', 'The mean distance of predicted and observed eligibility over bins of '
     'as many pairs each.'),
    ('hypervolume', 'The area that points (J, C) dominate: one number for a whole frontier.'),
    ('[low, high]', 'An interval that holds the true value at the stated level, 95% by default, '
     'by resampling. Paired: of the difference, list by list.'),
)
STUDY = (
    ('variant', 'The same road with some settings changed; its purpose stands beside it.'),
    ('mean ± sd', 'Over training seeds: the mean and the standard deviation.'),
    ('difference', 'Variant minus baseline, with its interval.'),
    ('p (Holm)', 'How often chance alone would give so great a difference, corrected for the '
     'number of comparisons (Holm, 1979).'),
)
