"""What every service needs and none owns: the task loop, the ledger, the bus, and the tools round them."""
