"""What the model writes of a pair: a language of true claims, its automaton, decoding."""
