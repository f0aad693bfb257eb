"""(4) Tell them: the only part of the bridge that notifiers' receivers ever hear."""
