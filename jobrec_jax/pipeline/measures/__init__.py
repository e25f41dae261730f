"""What is measured of a run: rankings, the policy, and whether predicted eligibility is right."""
