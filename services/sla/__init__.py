"""Keeps the clocks: owns each ticket's targets for first response, next response and resolution,
their pauses, and the business calendars they run by. It says when a warning or a breach falls, and
tells of each exactly once.
"""
