"""Stand-ins at the borders of our world: CI, a webhook receiver, Slack, robots. Written apart from what they test."""
