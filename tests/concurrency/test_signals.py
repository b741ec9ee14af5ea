from __future__ import annotations

from helpers.process import run_python


def test_a_signal_that_another_thread_gets_ends_the_wait() -> None:
    """The kernel may give it to any thread; the main one, deep in its wait, is not woken by that."""
    done = run_python(
        """
        import signal, threading
        from lightlink.concurrency.signals import StopSignal

        stop = StopSignal()

        def ask():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        with stop.caught():
            threading.Timer(0.2, ask).start()
            stop.wait()
        print("ended")
        """
    )

    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
