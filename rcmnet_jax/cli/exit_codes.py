"""Exit statuses of all commands."""

OK = 0
# Something worked only in part, e.g. some images could not be read; the output names them.
PARTIAL = 1
# The user can mend it; one line on standard error says how.
USER_ERROR = 2
# A bug, with its traceback, in a run of several processes; Python itself gives a lone one 1.
CRASHED = 70
# Stopped by SIGTERM with everything saved, or another process of the run is gone; EX_TEMPFAIL,
# which schedulers take for "again later".
INTERRUPTED = 75
# Stopped by Ctrl-C, as shells count it: 128 + SIGINT.
STOPPED = 130
# The reader of standard output went away (`rcmnet ... | head`): 128 + SIGPIPE.
CLOSED_PIPE = 141
