"""Pretrained decoders and adapters, read and written; nothing is ever unpickled."""
