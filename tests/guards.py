"""The same proof for guards in Python: each is taken out of a copy of the package, and a named test must fail.

`python -m tests.guards [WORD ...]` tries all, or those whose module or reason holds a word; it exits 1 if one survives.
Only tests that run in pytest's own process can notice: a daemon of a test runs the package as it is.
"""

from __future__ import annotations

import sys

from tests.support.guard import Guard, take_out

GUARDS = [
    Guard("retry.py", "a lapse counts as a crash", '"ready", "crashes", history', '"ready", "interruptions", history',
          "unit/test_retry.py::test_a_lapsed_lease_is_no_attempt_and_waits_from_the_second_on"),
    Guard("retry.py", "no attempt beyond the maximum", "if claimed.attempts < policy.max_attempts else", "if True else",
          "unit/test_retry.py::test_attempts_never_pass_the_maximum"),
    Guard("duties/recover.py", "who could not renew may not sweep",
          "if not self._trust.earned(self._clock.monotonic()):", "if False:",
          "integration/test_recover.py::test_who_may_not_judge_does_not_sweep"),
    Guard("duties/recover.py", "a second look, after the answer", "if same and self._trust.earned(answered) else",
          "if same else",
          "integration/test_recover.py::test_who_lost_the_right_while_redis_hung_does_not_act_on_its_answer"),
    Guard("heartbeat.py", "a renewal that failed costs the trust", "self.trust.lost()", "pass",
          "integration/test_heartbeat.py::test_beats_that_fail_come_sooner_and_cost_the_trust"),
    Guard("pool.py", "one run of a job in one process", "older = self._runs.holds(claimed.id)", "older = False",
          "integration/test_pool.py::test_a_job_whose_older_run_still_lives_here_waits_for_its_end"),
    Guard("claimer.py", "a claim without an answer is asked for again", "self.unanswered = True",
          "self.unanswered = False",
          "integration/test_claimer.py::test_a_claim_whose_reply_was_lost_leases_nothing_to_nobody"),
    Guard("claimer.py", "the last of them before a stop", "        if self.unanswered:\n            # The claim",
          "        if False:\n            # The claim",
          "integration/test_claimer.py::test_a_stop_asks_once_more_for_what_a_lost_reply_brought_and_hands_it_back"),
    Guard("duties/settle.py", "no claims while results wait", "            self.stuck = True\n", "            pass\n",
          "integration/test_settler.py::test_while_redis_is_away_outcomes_wait_in_order"),
    Guard("duties/outage.py", "the end of an outage is told", 'self._log.info("redis.back", away=seconds)', "pass",
          "unit/test_outage.py::test_an_outage_is_told_once_reminded_of_each_minute_and_told_to_be_over"),
    Guard("duties/outage.py", "one dropped connection is not", "if failures > 1:", "if True:",
          "unit/test_outage.py::test_a_single_dropped_connection_is_nothing_to_speak_of"),
    Guard("duties/progress.py", "a trouble ends though nothing is left to send",
          "                del self._news[key]\n", "                del self._news[key]\n        self._wake.clear()\n",
          "integration/test_progress.py::test_after_a_turn_that_failed_there_is_one_more_though_the_run_has_ended"),
    Guard("app/reload.py", "a reload a second", "while (early := self._early()) > 0:", "while (early := 0.0) > 0:",
          "unit/test_reload.py::test_a_storm_of_signals_is_a_reload_each_second"),
]  # fmt: skip


if __name__ == "__main__":
    sys.exit(take_out(GUARDS, sys.argv[1:]))
