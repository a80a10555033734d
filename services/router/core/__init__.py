"""The rules of the router: pure functions of state, event, instant and policy."""
