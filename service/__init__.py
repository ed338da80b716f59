"""The running program: daemon, endpoint, page, command line and the processes it supervises."""
