"""What holds for every test."""

import signal
import threading

# A shell that starts the tests in the background has them, and all that they start, ignore
# Ctrl-C; tests that press it would wait for ever.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
