"""Decides whose ticket it is: owns the life of every ticket (stage `router.tickets`) and the agents, their capacity and
the offers made to them (stage `router.assignment`). It says why, with every decision.
"""
