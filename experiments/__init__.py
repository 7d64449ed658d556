"""The stages of an experiment, and what runs them: the only floor that knows files,
configs and command lines."""
