"""What every endpoint shares: routes, parameters and bodies, problems, the description of the API."""
