"""The processes of a job, and what connects those that make a communicator."""
