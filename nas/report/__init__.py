"""What people see of a run: progress, tables, charts, reports. Only this and the command line print."""
