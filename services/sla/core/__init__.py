"""The pure rules of the SLA clocks; time, policy and events come in as arguments."""
