"""(4) Send it: the only part of the bridge that connects to notifiers' receivers."""
