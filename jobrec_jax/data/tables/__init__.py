"""A user's own tables as a data set: their schema file, their columns, their splits."""
