"""Proof that the tests notice: each guard of each script is taken out in turn, and a named test must fail.

`python -m tests.mutants [WORD ...]` tries all mutants, or those whose script or reason holds a word, on a copy of the
scripts; it prints a table and exits 1 if one survives. Not part of the ordinary test run.
"""

# ruff: noqa: E501 - a table of texts as they are in the scripts
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "daemon" / "jobqd" / "scripts"
SUITES = {
    "claim": "tests/integration/test_scripts_claim.py",
    "settle": "tests/integration/test_scripts_settle.py",
    "upkeep": "tests/integration/test_scripts_upkeep.py",
    "producing": "tests/integration/test_scripts_producing.py",
    "errors": "tests/property/test_injected_errors.py",
}


@dataclass(frozen=True)
class Mutant:
    """One broken script: `old` becomes `new` at its first place; `test` must fail then."""

    script: str
    what: str
    old: str
    new: str
    suite: str
    test: str


FIRST_ZREM = "redis.call('ZREM', active, '')\n"
MAXMEMORY = "test_at_maxmemory_only_the_enqueue_is_refused"
ANY_CALL = "test_an_error_at_any_call_loses_nothing"

MUTANTS = [
    # claim
    Mutant("claim", "worker check of a repeated claim", "flat and fields.worker == worker and", "flat and",
           "claim", "test_an_equal_number_leaves_out_what_another_worker_holds_under_the_same_fence"),
    Mutant("claim", "fence check of a repeated claim", "integer(fields.fence) == fence and redis", "redis",
           "claim", "test_an_equal_number_leaves_out_what_the_same_worker_claimed_anew"),
    Mutant("claim", "active check of a repeated claim", " and redis.call('ZSCORE', active, id) then\n          redis",
           " then\n          redis", "claim", "test_an_equal_number_leaves_out_what_has_ended"),
    Mutant("claim", "renewal by a repeated claim", "          redis.call('ZADD', active, 'XX', until_text, id)\n", "",
           "claim", "test_an_equal_number_renews_what_it_gives_again"),
    Mutant("claim", "claim number: an older one gives nothing", "if number == saved[1] then", "if true then",
           "claim", "test_a_lower_number_gives_nothing"),
    Mutant("claim", "claim number: kept", "redis.call('SET', record, cmsgpack.pack(saved), 'PX', record_ttl)\n", "",
           "claim", "test_an_equal_number_gives_the_same_leases_again"),
    Mutant("claim", "TTL of the record", ", 'PX', record_ttl)", ")", "claim", "test_the_record_of_a_claim_lasts_ten_leases"),
    Mutant("claim", "allowance counted down", "allowance[job_type] = allowed - 1", "allowance[job_type] = allowed",
           "claim", "test_caps_hold_within_one_batch"),
    Mutant("claim", "allowance of nought", "not allowed or allowed == 0", "not allowed", "claim",
           "test_caps_hold_within_one_batch"),
    Mutant("claim", "held sets as sources", "    if room ~= 0 then reasons[#reasons + 1]", "    if false then reasons[#reasons + 1]",
           "claim", "test_held_jobs_are_claimed_by_score_among_the_ready"),
    Mutant("claim", "a held job goes first among equals",
           "score < best_score or (score == best_score and source.reason)", "score < best_score",
           "claim", "test_held_jobs_are_claimed_by_score_among_the_ready"),
    Mutant("claim", "a held entry of another type moves on", "if source.reason == reason then", "if source.reason then",
           "claim", "test_a_held_job_whose_type_changed_does_not_bar_the_others"),
    Mutant("claim", "a bound on ids put aside", "looked - #taken < aside_max do", "true do",
           "claim", "test_twenty_thousand_blocked_ids_are_moved_aside_a_hundred_a_call"),
    Mutant("claim", "the flag `more`", "aside_max) and 1 or 0", "aside_max) and 0 or 0",
           "claim", "test_more_is_said_only_where_the_head_was_full"),
    Mutant("claim", "type check of the hash", "if foreign(flat) then return nil, nil, 'not a hash' end", "",
           "claim", "test_a_list_in_place_of_a_hash_is_dropped_and_costs_no_neighbour"),
    Mutant("claim", "no other error is taken for a foreign key", "  error(reply.err)\n", "  return true\n",
           "claim", "test_a_user_who_may_not_read_jobs_drops_none"),
    Mutant("claim", "integers: digits only", "and string.find(text, '^%d+$') ", "",
           "claim", "test_a_forged_fence_counts_as_nought_and_costs_no_neighbour"),
    Mutant("claim", "integers: at most 15 digits", "#text <= 15", "#text <= 99",
           "claim", "test_a_forged_fence_counts_as_nought_and_costs_no_neighbour"),
    Mutant("claim", "type check of scheduled", "redis.call('ZCARD', scheduled)\n", "",
           "claim", "test_a_key_of_a_wrong_type_stops_a_claim_before_it_writes"),
    Mutant("claim", "type check of missing", "  redis.call('ZCARD', missing)\n", "",
           "claim", "test_a_key_of_a_wrong_type_stops_a_claim_before_it_writes"),
    Mutant("claim", "type check of a held set",
           "      if not asides[reason] then asides[reason] = redis.call('ZCARD', held .. ':' .. reason) end\n", "",
           "claim", "test_a_key_of_a_wrong_type_stops_a_claim_before_it_writes"),
    Mutant("claim", "an active id is not leased again", "  if leased then\n", "  if false then\n",
           "claim", "test_an_active_id_enqueued_again_stays_one_run"),
    Mutant("claim", "an active id is processing again",
           "for _, id in ipairs(running) do redis.call('HSET', job_prefix .. id, 'status', 'processing') end\n", "",
           "claim", "test_an_active_id_enqueued_again_stays_one_run"),
    Mutant("claim", "an ended id is dropped",
           "  if fields.finished_at and TERMINAL[fields.status] then return drop(id, fields.status) end\n", "",
           "claim", "test_an_ended_id_that_only_returns_to_the_ready_set_is_dropped"),
    Mutant("claim", "an end needs its time", "if fields.finished_at and TERMINAL", "if TERMINAL",
           "claim", "test_a_terminal_status_without_an_end_is_a_producers_slip_and_runs"),
    Mutant("claim", "an old id begins anew", "  if job.reborn then forget(key, job.id) end\n", "",
           "claim", "test_an_ended_id_queued_again_without_del_begins_anew"),
    Mutant("claim", "PERSIST of an old id", "  redis.call('PERSIST', key)\n", "",
           "claim", "test_an_ended_id_queued_again_without_del_begins_anew"),
    Mutant("claim", "LREM of an old id", "  redis.pcall('LREM', dead, 0, id)\n", "",
           "claim", "test_an_ended_id_queued_again_without_del_begins_anew"),
    Mutant("claim", "`_ended` of an old id", ", '_ended')", ")",
           "claim", "test_an_ended_id_queued_again_without_del_begins_anew"),
    Mutant("claim", "an old due time does not expire a new enqueue", "local due = not reborn and ", "local due = ",
           "claim", "test_a_new_enqueue_of_an_old_id_is_not_expired"),
    Mutant("claim", "an expired job needs no handler", "or expired then allowed = -1", "then allowed = -1",
           "claim", "test_an_expired_job_is_handed_out_whatever_its_type"),
    Mutant("claim", "out of scheduled", "  redis.call('ZREM', scheduled, unpack(taken_ids))\n", "",
           "claim", "test_a_scheduled_id_enqueued_again_runs_now_and_once"),
    Mutant("claim", "out of held", "  if fields.held then redis.pcall('ZREM', held .. ':' .. fields.held, job.id) end\n", "",
           "claim", "test_a_held_id_enqueued_again_runs_once"),
    Mutant("claim", "ids without a hash wait", "else absent[#absent + 1] = {id = id, score = score} end",
           "else drop(id, 'no hash') end", "claim", "test_an_id_whose_hash_comes_late_runs_at_its_score"),
    Mutant("claim", "the wait for a hash is not prolonged", "missing, 'NX', now_text", "missing, now_text",
           "claim", "test_adding_an_id_again_does_not_prolong_its_wait_for_a_hash"),
    Mutant("claim", "priority follows the score", "    changes[#changes + 1] = level\n", "    changes[#changes + 1] = '0'\n",
           "claim", "test_the_field_priority_follows_the_score"),
    Mutant("claim", "counter entered", "if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end\n", "",
           "claim", "test_entered_is_counted_once_for_each_enqueue"),
    Mutant("claim", "entered once", "if reborn or not tonumber(fields._due_at or '') then", "if true then",
           "claim", "test_entered_is_counted_once_for_each_enqueue"),
    Mutant("claim", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    Mutant("claim", "last read for the tracking",
           "redis.call('ZRANGE', ready, 0, 0)\n\nlocal jobs", "\nlocal jobs",
           "claim", "test_the_last_read_of_a_claim_arms_the_tracking"),
    Mutant("claim", "order of writes: the lease first", "  redis.call('ZADD', active, unpack(leases))\nend\n",
           "  redis.call('ZREM', ready, unpack(taken_ids))\n  redis.call('ZADD', active, unpack(leases))\nend\n",
           "errors", ANY_CALL),
    Mutant("claim", "a held job that is ready too", "true, {}, nil\n", "true, {}, true\n",
           "claim", "test_a_held_job_that_is_ready_too_is_put_aside_at_its_new_score"),
    # settle
    Mutant("settle", "worker check", "worker == run.worker and integer(h[2])", "integer(h[2])",
           "settle", "test_a_write_needs_both_the_worker_and_the_fence"),
    Mutant("settle", "fence check", "worker == run.worker and integer(h[2]) == run.fence", "worker == run.worker",
           "settle", "test_a_write_needs_both_the_worker_and_the_fence"),
    Mutant("settle", "active check", "    if lease then\n", "    if true then lease = lease or '0'\n",
           "settle", "test_a_run_whose_lease_entry_is_gone_is_refused"),
    Mutant("settle", "lease check of a lapse", "tonumber(lease) >= now", "false",
           "settle", "test_a_lease_renewed_in_between_does_not_lapse"),
    Mutant("settle", "an ended job that is still listed", "if h[4] and TERMINAL[status] then", "if false then",
           "errors", ANY_CALL),
    Mutant("settle", "`_ended` answers already", "  if h[10] == run.name then return 'already' end\n", "",
           "settle", "test_a_settle_sent_again_after_the_job_was_leased_anew_leaves_that_lease_alone"),
    Mutant("settle", "`_ended` charges once", "      if h[10] == run.mark then run.charge, run.history = '', '' end\n", "",
           "errors", ANY_CALL),
    Mutant("settle", "`_ended` is written", "  if not terminal then set(",
           "  if false then set(",
           "settle", "test_a_settle_sent_again_after_the_job_was_leased_anew_leaves_that_lease_alone"),
    Mutant("settle", "a repeated settle leaves the next lease", "    elseif run.leftover then\n",
           "    elseif replies[i] == 'already' then\n",
           "settle", "test_a_settle_sent_again_after_the_job_was_leased_anew_leaves_that_lease_alone"),
    Mutant("settle", "one settle a run in a batch", "if seen[run.id] == run.name then", "if false then",
           "settle", "test_the_same_settle_twice_in_one_batch_counts_once"),
    Mutant("settle", "HDEL worker at a lapse", "  if run.guard ~= 'run' then redis.call('HDEL'", "  if false then redis.call('HDEL'",
           "settle", "test_a_late_result_of_a_dead_daemon_is_stale_while_the_job_waits"),
    Mutant("settle", "type check of the hash", "  if foreign(h) then return 'gone' end\n", "",
           "settle", "test_a_job_that_is_gone_costs_no_neighbour"),
    Mutant("settle", "no other error is taken for a foreign key", "  error(reply.err)\n", "  return true\n",
           "settle", "test_a_user_who_may_not_read_jobs_loses_no_result"),
    Mutant("settle", "integers: digits only", "and string.find(text, '^%d+$') ", "",
           "settle", "test_forged_counts_start_anew_at_nought"),
    Mutant("settle", "finite delays", "or value ~= value or value > 1e12 ", "",
           "settle", "test_a_delay_that_is_no_number_costs_no_neighbour"),
    Mutant("settle", "finite priorities", "or value ~= value or value > 1e15 or value < -1e15 ", "",
           "settle", "test_a_forged_priority_costs_no_neighbour"),
    Mutant("settle", "type check of ready", "redis.call('ZCARD', ready)\n", "",
           "settle", "test_a_key_of_a_wrong_type_stops_a_settle_before_it_writes"),
    Mutant("settle", "type check of scheduled", "redis.call('ZCARD', scheduled)\n", "",
           "settle", "test_a_key_of_a_wrong_type_stops_a_settle_before_it_writes"),
    Mutant("settle", "type check of dead", "redis.call('LLEN', dead)\n", "",
           "settle", "test_a_key_of_a_wrong_type_stops_a_settle_before_it_writes"),
    Mutant("settle", "TTL of an ended job", "  if terminal then redis.call('EXPIRE', run.key, run.ttl) end\n", "",
           "settle", "test_completed"),
    Mutant("settle", "each dead letter once", "redis.call('LREM', dead, 0, run.id)", "run.id = run.id",
           "settle", "test_the_dead_letters_are_newest_first_each_once_and_bounded"),
    Mutant("settle", "mark of an id in the dead letters", "redis.call('HSET', run.key, '_dead', '1')", "run.id = run.id",
           "settle", "test_a_job_that_left_the_dead_letters_is_not_looked_for_in_them"),
    Mutant("settle", "a bound on the dead letters", "<= dead_max then break", "<= dead_max + 99 then break",
           "settle", "test_the_dead_letters_are_newest_first_each_once_and_bounded"),
    Mutant("settle", "TTL of a trimmed dead letter", "redis.call('EXPIRE', job_prefix .. id, trimmed_ttl)", "id = nil",
           "settle", "test_the_dead_letters_are_newest_first_each_once_and_bounded"),
    Mutant("settle", "a trimmed id that lives again", "== 'failed' then redis.call('EXPIRE'", "then redis.call('EXPIRE'",
           "settle", "test_an_id_trimmed_from_the_dead_letters_that_lives_again_gets_no_ttl"),
    Mutant("settle", "a bound on the list of the ended", "  redis.pcall('LTRIM', finished, 0, finished_max - 1)\n", "",
           "settle", "test_the_list_of_the_ended_is_bounded"),
    Mutant("settle", "a bound on the history", "math.max(1, #lines - HISTORY_LINES + 1)", "1",
           "settle", "test_the_history_of_failures_keeps_the_last_ten"),
    Mutant("settle", "a bound on a forged history", "not old or #old > HISTORY_BYTES", "not old",
           "settle", "test_a_forged_history_that_is_too_long_is_let_go"),
    Mutant("settle", "out of ready", "if #unready > 0 then redis.call('ZREM', ready, unpack(unready)) end\n", "",
           "settle", "test_an_enqueue_of_a_running_job_adds_no_run"),
    Mutant("settle", "counters", "for name, value in pairs(tally) do redis.pcall('HINCRBY', counters, name, value) end\n", "",
           "settle", "test_counters_are_conserved"),
    Mutant("settle", "counters of a wrong type", "redis.pcall('HINCRBY', counters", "redis.call('HINCRBY', counters",
           "settle", "test_a_key_for_people_of_a_wrong_type_costs_no_result"),
    Mutant("settle", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    Mutant("settle", "order of writes: the new index first", "  place(run)\n  record(run)\n",
           "  redis.call('ZREM', active, run.id)\n  place(run)\n  record(run)\n", "errors", ANY_CALL),
    Mutant("settle", "order of writes: the dead list before the status", "  place(run)\n  record(run)\n",
           "  record(run)\n  place(run)\n", "errors", ANY_CALL),
    # lapsed
    Mutant("lapsed", "only leases that ran out", "'(' .. now, 'LIMIT'", "'+inf', 'LIMIT'",
           "upkeep", "test_only_leases_that_ran_out_are_listed"),
    Mutant("lapsed", "only the dead worker's", "if dead_worker == '' or h[1] == dead_worker then", "if true then",
           "upkeep", "test_a_dead_daemons_jobs_are_listed_and_no_others"),
    Mutant("lapsed", "leftovers of ended jobs", "if lost or (h[4] and TERMINAL[h[3]]) then", "if lost then",
           "upkeep", "test_an_active_entry_of_an_ended_job_is_cleared_away"),
    Mutant("lapsed", "leftovers without a hash", "if lost or (h", "if (h",
           "upkeep", "test_an_active_entry_without_a_hash_is_cleared_away_and_counted"),
    Mutant("lapsed", "no other error is taken for a foreign key", "  error(reply.err)\n", "  return true\n",
           "settle", "test_a_user_who_may_not_read_jobs_loses_no_result"),
    # promote
    Mutant("promote", "only what is due", "'-inf', now_text, 'WITHSCORES'", "'-inf', '+inf', 'WITHSCORES'",
           "upkeep", "test_due_jobs_become_ready_at_their_priority"),
    Mutant("promote", "NX: a ready job keeps its place", "redis.call('ZADD', ready, 'NX', score(job",
           "redis.call('ZADD', ready, score(job", "upkeep", "test_a_due_job_that_is_ready_already_keeps_its_place"),
    Mutant("promote", "a running job is left alone", " or redis.call('ZSCORE', active, id) then\n    gone", " then\n    gone",
           "upkeep", "test_a_due_entry_of_a_running_job_is_cleared_away"),
    Mutant("promote", "an ended job is left alone", "elseif (h[2] and TERMINAL[h[1]]) or", "elseif",
           "upkeep", "test_a_due_entry_of_an_ended_job_is_cleared_away"),
    Mutant("promote", "finite priorities", "or value ~= value or value > 1e15 or value < -1e15 ", "",
           "upkeep", "test_a_forged_priority_counts_as_nought"),
    Mutant("promote", "counter entered", "if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end\n", "",
           "upkeep", "test_a_job_is_first_due_at_its_scheduled_time"),
    Mutant("promote", "a retry keeps its first due time", "  if not job.entered then\n", "  if true then\n",
           "upkeep", "test_a_retry_keeps_the_time_it_was_first_due"),
    Mutant("promote", "patience with ids without a hash", "now - since > patience", "true",
           "claim", "test_an_id_without_a_hash_is_given_up_after_five_seconds"),
    Mutant("promote", "a second before looking again", "now - 1)", "now)",
           "claim", "test_an_id_whose_hash_comes_late_runs_at_its_score"),
    Mutant("promote", "a late hash of a running job", "and not redis.call('ZSCORE', active, id) then\n      redis", "then\n      redis",
           "upkeep", "test_a_late_hash_of_a_job_that_runs_by_now_is_left_alone"),
    Mutant("promote", "type check of held:missing", "redis.call('ZCARD', held .. ':missing')\n", "",
           "upkeep", "test_a_key_of_a_wrong_type_stops_a_promotion_before_it_writes"),
    Mutant("promote", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    Mutant("promote", "order of writes: ready first",
           "  redis.call('ZADD', ready, 'NX', score(job",
           "  redis.call('ZREM', scheduled, job.id)\n  redis.call('ZADD', ready, 'NX', score(job", "errors", ANY_CALL),
    # beat, progress, checkpoint
    Mutant("beat", "worker check", "h[1] == worker and ", "", "upkeep", "test_a_beat_of_a_foreign_run_renews_nothing"),
    Mutant("beat", "fence check", "integer(h[2]) == fence and ", "", "upkeep", "test_a_beat_of_a_foreign_run_renews_nothing"),
    Mutant("beat", "active check", " and redis.call('ZSCORE', active, id) then", " then",
           "upkeep", "test_a_beat_does_not_revive_a_lease_that_is_gone"),
    Mutant("beat", "no other error is taken for a foreign key", "  error(reply.err)\n", "  return true\n",
           "settle", "test_a_user_who_may_not_read_jobs_loses_no_result"),
    Mutant("beat", "chunks for the stack of Lua", "#renewed, 1000 do", "#renewed, 100000 do",
           "upkeep", "test_two_thousand_leases_in_one_beat"),
    Mutant("beat", "presence has an end", "  redis.pcall('EXPIRE', daemon, math.ceil(vouched))\n", "",
           "upkeep", "test_a_beat_vouches_for_its_daemon_for_a_lease"),
    Mutant("beat", "presence of a wrong type", "redis.pcall('HSET', daemon", "redis.call('HSET', daemon",
           "upkeep", "test_a_foreign_key_in_place_of_presence_costs_no_lease"),
    Mutant("beat", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    Mutant("progress", "worker check", "h[1] == worker and ", "",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("progress", "fence check", "integer(h[2]) == integer(ARGV[i + 1]) and ", "",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("progress", "active check", " and redis.call('ZSCORE', active, id) then", " then",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("progress", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    Mutant("checkpoint", "worker check", " or h[1] ~= worker", "",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("checkpoint", "fence check", " or h[2] ~= fence", "",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("checkpoint", "active check", " or not redis.call('ZSCORE', active, id)", "",
           "upkeep", "test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused"),
    Mutant("checkpoint", "a late copy of an older one", "tonumber(last) > number", "false",
           "upkeep", "test_a_late_copy_of_a_checkpoint_does_not_replace_a_newer_one"),
    Mutant("checkpoint", "numbers are those of one run", "by == fence and", "by and",
           "upkeep", "test_the_checkpoints_of_the_next_run_are_numbered_anew"),
    Mutant("checkpoint", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    # walk
    Mutant("walk", "only hashes with status and type", " or not h[1] or not h[2] then", " then",
           "upkeep", "test_hashes_of_the_application_are_left_alone"),
    Mutant("walk", "acknowledged jobs only are restored", "    if due then\n", "    if true then\n",
           "upkeep", "test_a_hash_without_zadd_was_never_acknowledged_and_is_reported_only_when_old"),
    Mutant("walk", "the age of a report", " and now - created(h[4]) > report_age then", " then",
           "upkeep", "test_a_hash_without_zadd_was_never_acknowledged_and_is_reported_only_when_old"),
    Mutant("walk", "milliseconds of JavaScript", "  if value > 1e11 then return value / 1000 end\n", "",
           "upkeep", "test_a_hash_without_zadd_was_never_acknowledged_and_is_reported_only_when_old"),
    Mutant("walk", "the old time of an ended id", "local reborn = h[3] and h[1] == 'queued'", "local reborn = false",
           "upkeep", "test_a_second_hset_without_zadd_on_an_ended_job_was_never_acknowledged"),
    Mutant("walk", "a new enqueue is counted by its claim alone", "not due and not reborn and", "not due and",
           "upkeep", "test_a_new_enqueue_of_an_old_id_is_counted_by_its_claim_alone"),
    Mutant("walk", "PERSIST of a waiting job", "    redis.call('PERSIST', key)\n", "",
           "upkeep", "test_a_waiting_job_loses_its_ttl"),
    Mutant("walk", "TTL of an ended job", "      redis.call('EXPIRE', key, ended_ttl)\n", "",
           "upkeep", "test_an_ended_job_without_a_ttl_gets_one"),
    Mutant("walk", "the age of a raw job", "    redis.call('HSET', key, '_due_at', now_text)\n", "",
           "upkeep", "test_a_raw_job_is_dated_when_it_is_first_seen"),
    Mutant("walk", "expired jobs", "and now - due > max_age and", "and false and",
           "upkeep", "test_an_expired_job_goes_where_a_claim_takes_it_even_without_a_handler"),
    Mutant("walk", "who held a restored job is refused", "  redis.call('HDEL', key, 'worker')\n", "",
           "upkeep", "test_an_acknowledged_job_in_no_index_is_put_back"),
    Mutant("walk", "the dead tail", "  redis.call('RPOP', dead)\n", "  break\n",
           "upkeep", "test_dead_letters_whose_hash_is_gone_are_swept_from_the_tail"),
    Mutant("walk", "held entries without a hash", "then redis.call('ZREM', key, id) end", "then id = nil end",
           "upkeep", "test_held_entries_whose_hash_is_gone_are_swept"),
    Mutant("walk", "empty held sets are not named", "if redis.call('EXISTS', key) == 0 then redis.call('SREM'",
           "if reason ~= 'missing' and redis.call('EXISTS', key) == 0 then redis.call('SREM'", "errors", ANY_CALL),
    Mutant("walk", "types of the indexes",
           "for _, key in ipairs({ready, active, scheduled, held .. ':missing'}) do redis.call('ZCARD', key) end\n"
           "redis.call('LLEN', dead)\n", "",
           "upkeep", "test_a_key_of_a_wrong_type_stops_a_walk_before_it_writes"),
    Mutant("walk", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    # enqueue
    Mutant("enqueue", "an id that exists", "redis.call('EXISTS', job_prefix .. id) == 1", "false",
           "producing", "test_an_id_that_exists_is_left_as_it_is"),
    Mutant("enqueue", "an id twice in one call", "local exists = seen[id] or ", "local exists = ",
           "producing", "test_the_same_id_twice_in_one_call_is_one_job"),
    Mutant("enqueue", "max_ready", "if #jobs > 0 and waiting + #jobs > max_ready then return {'full', waiting} end\n", "",
           "producing", "test_beyond_max_ready_nothing_is_written"),
    Mutant("enqueue", "a hash without an index", "    if job.lost then jobs[#jobs + 1] = job end\n", "",
           "producing", "test_an_enqueue_makes_a_hash_count_that_never_got_into_an_index"),
    Mutant("enqueue", "what such a hash has is kept", "redis.call('HSETNX', key", "redis.call('HSET', key",
           "producing", "test_an_enqueue_makes_a_hash_count_that_never_got_into_an_index"),
    Mutant("enqueue", "a scheduled hash without an index", "(status == 'queued' or status == 'scheduled')",
           "status == 'queued'", "producing", "test_an_enqueue_that_was_cut_short_can_be_sent_again"),
    Mutant("enqueue", "PERSIST of an ended hash", "    redis.call('PERSIST', key)\n", "",
           "producing", "test_an_enqueue_makes_an_ended_hash_count_that_was_only_queued_again"),
    Mutant("enqueue", "the order of one call", "if sorts_before(job.id, before.id) then", "if false then",
           "producing", "test_five_hundred_of_one_call_keep_their_order"),
    Mutant("enqueue", "finite due times", "if job.when ~= 'now' and not finite(job.due)", "if false",
           "producing", "test_a_due_time_that_is_no_number_refuses_the_call_with_nothing_written"),
    Mutant("enqueue", "type check of ready", "local waiting = redis.call('ZCARD', ready)\n", "local waiting = 0\n",
           "producing", "test_an_index_of_a_wrong_type_refuses_the_call_with_nothing_written"),
    Mutant("enqueue", "type check of scheduled", "redis.call('ZCARD', scheduled)\n", "",
           "producing", "test_an_index_of_a_wrong_type_refuses_the_call_with_nothing_written"),
    Mutant("enqueue", "refused at maxmemory", "local time = redis.call('TIME')\n",
           "redis.call('ZREM', active, '')\nlocal time = redis.call('TIME')\n", "settle", MAXMEMORY),
    Mutant("enqueue", "chunks for the stack of Lua", "job.size - 1, 1000 do", "job.size - 1, 100000 do",
           "producing", "test_fields_beyond_the_stack_of_lua"),
    Mutant("enqueue", "out of missing", "  if has_missing then\n", "  if false then\n",
           "producing", "test_an_id_that_waits_for_its_hash_runs_once"),
    Mutant("enqueue", "what an ended job left behind", "    if job.ended then\n", "    if false then\n",
           "producing", "test_a_delayed_enqueue_of_such_a_hash_forgets_the_older_job"),
    # cancel
    *(
        Mutant("cancel", f"out of {name}", f"    redis.call('ZREM', {name}, job.id)\n", "",
               "producing", "test_cancel_is_terminal_at_once_wherever_the_job_is")
        for name in ("ready", "scheduled", "active")
    ),
    Mutant("cancel", "out of missing", "    redis.call('ZREM', missing, job.id)\n", "",
           "producing", "test_cancel_of_an_id_that_waits_for_its_hash"),
    Mutant("cancel", "out of held", "redis.pcall('ZREM', held .. ':' .. reason, job.id)", "do end",
           "producing", "test_cancel_is_terminal_at_once_wherever_the_job_is"),
    Mutant("cancel", "TTL", "    redis.call('EXPIRE', key, ttl)\n", "",
           "producing", "test_cancel_is_terminal_at_once_wherever_the_job_is"),
    Mutant("cancel", "an ended job is left alone", "elseif h[2] and TERMINAL[h[1]] then", "elseif false then",
           "producing", "test_cancel_of_what_is_not_there_or_has_ended"),
    Mutant("cancel", "an id twice in one call", "if not done[job.id] then", "if true then",
           "producing", "test_cancel_names_the_same_id_twice_and_counts_once"),
    Mutant("cancel", "out of the dead letters", "      redis.pcall('LREM', dead, 0, job.id)\n", "",
           "producing", "test_cancel_of_a_dead_letter_that_was_queued_again"),
    Mutant("cancel", "a daemon is told", "if job.running then redis.pcall('PUBLISH', control", "if false then redis.pcall('PUBLISH', control",
           "producing", "test_cancel_of_a_running_job_tells_its_daemon_and_subscribers"),
    Mutant("cancel", "types of the indexes", "for _, key in ipairs({ready, scheduled, missing, held .. ':missing'}) do redis.call('ZCARD', key) end\n", "",
           "producing", "test_a_key_of_a_wrong_type_stops_a_cancel_before_it_writes"),
    Mutant("cancel", "first ZREM for maxmemory", FIRST_ZREM, "", "settle", MAXMEMORY),
    # dead_retry
    Mutant("dead_retry", "only dead letters", "h[1] ~= 'failed' or not h[2] or ", "",
           "producing", "test_only_dead_letters_are_retried"),
    Mutant("dead_retry", "an id twice in one call", " or seen[id] then", " then",
           "producing", "test_a_retry_sent_twice_is_one_run"),
    Mutant("dead_retry", "PERSIST", "  redis.call('PERSIST', key)\n", "",
           "producing", "test_a_dead_letter_is_retried_with_its_checkpoint_and_new_attempts"),
    Mutant("dead_retry", "LREM", "  redis.call('LREM', dead, 0, job.id)\n", "",
           "producing", "test_a_dead_letter_is_retried_with_its_checkpoint_and_new_attempts"),
    Mutant("dead_retry", "counted as a new enqueue", ", '_due_at', '_ended')", ", '_ended')",
           "producing", "test_a_dead_letter_is_retried_with_its_checkpoint_and_new_attempts"),
    Mutant("dead_retry", "finite priorities", "level ~= level or level > 1e15 or level < -1e15", "false",
           "producing", "test_a_forged_priority_of_a_dead_letter_counts_as_nought"),
    Mutant("dead_retry", "types of the indexes", "redis.call('ZCARD', ready)\nredis.call('LLEN', dead)\n", "",
           "producing", "test_a_key_of_a_wrong_type_stops_a_retry_before_it_writes"),
]  # fmt: skip


def run_tests(tests: list[str], scripts: Path) -> int:
    """Run tests against the scripts of a directory; return pytest's exit status (1: a test failed)."""
    environment = {**os.environ, "JOBQD_TEST_SCRIPTS": str(scripts), "PYTHONPATH": str(ROOT / "daemon")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def outcome(mutant: Mutant) -> str:
    """Return "killed", or what is wrong: "survived", "not applicable", or that the test could not run."""
    source = (SCRIPTS / f"{mutant.script}.lua").read_text()
    if mutant.old not in source:
        return "not applicable: the text is not in the script"
    with tempfile.TemporaryDirectory(prefix="jq") as directory:
        for path in SCRIPTS.glob("*.lua"):
            shutil.copy(path, directory)
        broken = source.replace(mutant.old, mutant.new, 1)
        (Path(directory) / f"{mutant.script}.lua").write_text(broken)
        status = run_tests([f"{SUITES[mutant.suite]}::{mutant.test}"], Path(directory))
    return {0: "survived", 1: "killed"}.get(status, f"the test did not run (pytest exit {status})")


def main(words: list[str]) -> int:
    """Try the mutants that match and print a table."""
    chosen = [mutant for mutant in MUTANTS if not words or any(w in f"{mutant.script}: {mutant.what}" for w in words)]
    tests = sorted({f"{SUITES[mutant.suite]}::{mutant.test}" for mutant in chosen})
    if run_tests(tests, SCRIPTS):
        print("the tests fail on the scripts as they are: mend that first")
        return 1
    results = []
    for mutant in chosen:
        results.append(outcome(mutant))
        print(f"{results[-1]:9} {mutant.script:10} {mutant.what:50} {mutant.test}", flush=True)
    killed = results.count("killed")
    print(f"{killed} of {len(results)} mutants killed")
    return 0 if killed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
