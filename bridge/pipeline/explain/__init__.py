"""Why did I (not) get this? Every rule's answer to a transition, and what came of the messages."""

from bridge.pipeline.explain.made_up import explain_sample
from bridge.pipeline.explain.stored import explain_stored
from bridge.pipeline.explain.text import as_text

__all__ = ["as_text", "explain_sample", "explain_stored"]
