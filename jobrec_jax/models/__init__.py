"""Linen modules: a decoder over lists, adapters, the experts, the policy head."""
