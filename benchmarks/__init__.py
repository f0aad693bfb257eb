"""The bridge beside its peers, in the same minutes on the same machine: only the ratios mean something."""
