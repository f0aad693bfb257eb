"""Stand-ins at the borders of our world: CI, a webhook receiver, Slack. Written apart from the code they test."""
