"""MPI's own collectives as plans: what the engine of ranks joined by MPI runs beside schedules."""
