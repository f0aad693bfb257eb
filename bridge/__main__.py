"""`python -m bridge` is `ci-bridge`."""

from bridge.cli import main

main()
