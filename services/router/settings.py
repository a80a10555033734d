"""What an operator sets for the router: what every service has, and nothing else. Who gets what is policy."""

from chassis.settings import Settings as ServiceSettings


class Settings(ServiceSettings):
    """Settings of the router."""
