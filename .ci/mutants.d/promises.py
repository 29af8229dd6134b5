"""What ordinary tests must catch: see `.ci/mutants`.

The guarantees, by their numbers, and the other promises of the documentation. Of each mutation: what is broken; the file;
the text; what is put in its place; the test that is to fail.
"""

CELL = "src/task/cell.rs"
HANDLE = "src/task/handle.rs"
JOB = "src/task/job.rs"
CONTEXT = "src/task/context.rs"
CIRCLE = "src/task/circle.rs"
SPAN = "src/task/span.rs"
POOL = "src/pool/mod.rs"
BUILDER = "src/pool/builder.rs"
CONFIG = "src/pool/config.rs"
GLOBAL = "src/pool/global.rs"
METRICS = "src/pool/metrics.rs"
QUEUE = "src/pool/queue.rs"
ROOM = "src/pool/room.rs"
ROSTER = "src/pool/roster.rs"
SHARED = "src/pool/shared.rs"
SHUTDOWN = "src/pool/shutdown.rs"
SUBMIT = "src/pool/submit.rs"
WORKER = "src/pool/worker.rs"
IDLE = "src/pool/idle.rs"
DOZING = "src/pool/dozing.rs"
SLEEPER = "src/sleeper.rs"
OFFERS = "src/offers.rs"
BLOCK_ON = "src/block_on.rs"
AS_COMPLETED = "src/combine/as_completed.rs"
LIMIT = "src/combine/limit.rs"
MAP = "src/combine/map.rs"
WAIT = "src/combine/wait.rs"
SCOPE = "src/scope.rs"
ERROR = "src/error.rs"
EXECUTOR = "src/executor.rs"
EXECUTOR_EXT = "src/executor_ext.rs"

MUTANTS = {
    "1: every handle resolves": [
        (
            "a job that panics is not resolved",
            CELL,
            "            let panicked = outcome.is_err();\n",
            "            let panicked = outcome.is_err();\n            if panicked {\n                return;\n            }\n",
            "guarantees::guarantee_1_every_handle_resolves_whatever_happens",
        ),
        (
            "a job whose executor drops it is not resolved",
            JOB,
            "            cell.refuse(JoinError::cancelled());",
            "            drop(cell);",
            "executors::an_executor_that_drops_everything_leaves_no_handle_hanging",
        ),
        (
            "`shutdown_now` cancels nothing that is queued and runs none of it",
            SHARED,
            "        self.close(why);\n        self.refuse_condemned();\n",
            "        self.close(why);\n",
            "guarantees::guarantee_1_every_handle_resolves_whatever_happens",
        ),
        (
            "without any thread the jobs stay in the queue",
            WORKER,
            "    if shared.roster.refused(opening) {",
            "    if shared.roster.refused(opening) && false {",
            "refused_threads::guarantee_7_with_no_thread_at_all_handles_resolve_with_the_systems_error",
        ),
    ],
    "2: a job runs once or is reported as not run": [
        (
            "a job that did not run is not counted",
            SHARED,
            "        Shard::up(&self.0.counters.mine().cancelled);",
            "",
            "guarantees::guarantee_2_a_job_runs_once_or_is_reported_as_not_run",
        ),
        (
            "a panic is counted as a good end",
            WORKER,
            "            true => &mine.panicked,",
            "            true => &mine.completed,",
            "guarantees::guarantee_2_a_job_runs_once_or_is_reported_as_not_run",
        ),
        (
            "a job that was cancelled with all others can still run",
            CELL,
            "            condemned: None,\n            ..\n        } = inner.stage",
            "            condemned: _,\n            ..\n        } = inner.stage",
            "odd_moments::guarantee_2_a_job_that_was_cancelled_with_all_others_is_not_run_by_who_waits_for_it",
        ),
    ],
    "3: the last waker is woken, a dropped handle wakes nobody": [
        (
            "a poll keeps the first waker",
            CELL,
            "inner.waker.as_ref().is_some_and(|w| w.will_wake(waker))",
            "inner.waker.as_ref().is_some_and(|w| w.will_wake(waker) || true)",
            "guarantees::guarantee_3_the_last_waker_wins_and_a_dropped_handle_wakes_nobody",
        ),
        (
            "a replaced waker is not dropped at that poll",
            HANDLE,
            "                Ok(previous) => {\n                    if previous.is_some() {\n                        let_go(\"a waker's destructor\", previous);",
            "                Ok(previous) => {\n                    if previous.is_some() {\n                        mem::forget(previous);",
            "guarantees::guarantee_3_the_last_waker_wins_and_a_dropped_handle_wakes_nobody",
        ),
        (
            "a dropped handle leaves its waker behind, which is woken",
            CELL,
            "        let waker = inner.waker.take();\n        drop(inner);\n        if outcome.is_some() {",
            "        let waker: Option<Waker> = None;\n        drop(inner);\n        if outcome.is_some() {",
            "guarantees::guarantee_3_the_last_waker_wins_and_a_dropped_handle_wakes_nobody",
        ),
        (
            "the end of a job wakes nobody",
            CELL,
            'contain("a waker", || waker.wake());\n            }\n            return wakes;',
            "drop(waker);\n            }\n            return wakes;",
            "guarantees::guarantee_3_no_wakeup_is_lost_between_poll_and_end",
        ),
    ],
    "4: no user code under a lock": [
        (
            "a cancelled closure is dropped under the lock",
            CELL,
            "        drop(inner);\n        let_go(\"the destructor of a job's closure\", closure);",
            "        let_go(\"the destructor of a job's closure\", closure);\n        drop(inner);",
            "locks::guarantee_4_nor_when_jobs_are_cancelled_or_refused",
        ),
        (
            "callbacks run under the lock",
            CELL,
            "                drop(inner);\n                extras.run_callbacks(&outcome);\n                continue;",
            "                extras.run_callbacks(&outcome);\n                drop(inner);\n                continue;",
            "locks::guarantee_4_no_user_code_runs_under_a_lock",
        ),
        (
            "a waker is woken under the lock",
            CELL,
            "            drop(inner);\n            if let Some(waker) = waker {\n                contain(\"a waker\", || waker.wake());\n            }\n",
            "            if let Some(waker) = waker {\n                contain(\"a waker\", || waker.wake());\n            }\n            drop(inner);\n",
            "locks::guarantee_4_a_waker_may_use_the_handle_that_it_was_polled_with",
        ),
        (
            "the waker of who waits for room is cloned under the lock",
            ROOM,
            "        let waker = waker.clone();\n        let mut places = self.places.lock();\n",
            "        let mut places = self.places.lock();\n        let waker = waker.clone();\n",
            "locks::guarantee_4_nor_for_those_who_wait_for_room_or_for_the_end",
        ),
        (
            "a callback's panic is told to `tracing` under the lock",
            CELL,
            "                drop(inner);\n                extras.run_callbacks(&outcome);\n                continue;",
            "                extras.run_callbacks(&outcome);\n                drop(inner);\n                continue;",
            "locks::guarantee_4_nor_in_the_subscriber_whose_panics_harm_nothing",
        ),
    ],
    "5: one allocation, nothing kept": [
        (
            "each job costs one more allocation",
            SUBMIT,
            "    let job = Job::new(Arc::clone(&cell) as _);\n",
            "    let job = Job::new(Arc::clone(&cell) as _);\n    drop(std::hint::black_box(Box::new(1_u8)));\n",
            "allocations::guarantee_5_a_job_costs_one_allocation_and_leaves_nothing_behind",
        ),
        (
            "what a cancelled job captured is kept",
            CELL,
            "        let_go(\"the destructor of a job's closure\", closure);",
            "        mem::forget(closure);",
            "guarantees::guarantee_5_after_it_resolved_the_pool_keeps_nothing_of_a_job",
        ),
        (
            "what the queue holds of cancelled jobs stays there",
            QUEUE,
            "        husks > HUSKS_AT_LEAST && husks >",
            "        false && husks > HUSKS_AT_LEAST && husks >",
            "allocations::guarantee_5_a_job_costs_one_allocation_and_leaves_nothing_behind",
        ),
        (
            "what the queue holds of helped jobs stays there",
            SHARED,
            "        self.shared.queue.husk_made();\n        self.shared.queue.sweep();\n",
            "",
            "allocations::guarantee_5_a_job_costs_one_allocation_and_leaves_nothing_behind",
        ),
    ],
    "6: waits in a worker do not hang": [
        (
            "a join does not run the job that it waits for",
            HANDLE,
            "Half::Waits(cell) => cell.is_helpable() && Arc::clone(cell).helpable().help(),",
            "Half::Waits(_) => false,",
            "nested::guarantee_6_recursive_joins_end_on_one_worker",
        ),
        (
            "a wait for all runs none of them at once",
            WAIT,
            "            handles.iter().for_each(WaitHandle::help);",
            "            let _ = handles;",
            "nested::guarantee_6_waits_for_one_and_for_all_run_the_job_at_once_in_the_waiter",
        ),
        (
            "the end of a scope runs none of its jobs",
            SCOPE,
            "            while let Some(job) = self.next_untried() {\n                job.help();\n            }\n",
            "            while let Some(job) = self.next_untried() {\n                drop(job);\n            }\n",
            "scope::guarantee_6_scopes_nest_in_jobs_down_to_one_worker",
        ),
        (
            "nobody is asked to help when all workers wait",
            DOZING,
            "        asked.bell.ask();\n",
            "",
            "nested::guarantee_6_every_kind_of_wait_ends_on_one_worker",
        ),
        (
            "who takes results as they come runs jobs though a worker could",
            BLOCK_ON,
            "        sleeper.help_if_asked();",
            "        sleeper.bell().ask();\n        sleeper.help_if_asked();",
            "nested::guarantee_6_waits_for_any_help_only_when_no_worker_can_and_oldest_first",
        ),
        (
            "a job is run that is no longer waited for",
            OFFERS,
            "        self.polled == turn.poll",
            "        self.polled == turn.poll || true",
            "nested::guarantee_6_a_job_that_is_no_longer_waited_for_is_not_run",
        ),
        (
            "a wait with a time limit runs a job",
            HANDLE,
            "        if deadline.is_none() {\n            if self.help() {",
            "        {\n            if self.help() {",
            "nested::guarantee_6_a_wait_with_a_time_limit_runs_nothing_and_ends_by_it",
        ),
        (
            "a blocking wait for room in a worker waits",
            SUBMIT,
            "            if !blocks_here() || self.shared.own_badge().is_none() {",
            "            if !blocks_here() || self.shared.own_badge().is_none() || true {",
            "nested::guarantee_6_over_the_capacity_instead_of_waiting_for_room",
        ),
        (
            "a circle of joins is not found",
            CIRCLE,
            "    if let Some(way) = way_back(&sleeping, thread, &own) {",
            "    if let Some(way) = way_back(&sleeping, thread, &own).filter(|_| false) {",
            "nested::guarantee_6_a_circle_of_joins_is_an_error_for_one_of_them",
        ),
    ],
    "7: refused threads": [
        (
            "one refusal refuses the jobs although workers live",
            WORKER,
            "    if shared.roster.refused(opening) {",
            "    if shared.roster.refused(opening) || true {",
            "refused_threads::guarantee_7_the_pool_carries_on_with_the_threads_it_got",
        ),
        (
            "a refusal is not counted",
            WORKER,
            "    shared.counters.spawn_failed();\n",
            "",
            "refused_threads::guarantee_7_the_pool_carries_on_with_the_threads_it_got",
        ),
        (
            "a refusal is not told to `tracing`",
            WORKER,
            "    report(|| tracing::warn!(%pool, error = %refusal, \"the system refused a thread: {refusal}\"));",
            "    let _ = (pool, refusal);",
            "refused_threads::guarantee_7_a_refusal_is_told_to_tracing",
        ),
        (
            "a thread that was refused counts as a worker for ever",
            ROSTER,
            "        let retry_at = Instant::now() + RETRY_AFTER;\n        let mut staff = self.staff.lock();\n        let workers = staff.workers - 1;",
            "        let retry_at = Instant::now() + RETRY_AFTER;\n        let mut staff = self.staff.lock();\n        let workers = staff.workers;",
            "refused_threads::guarantee_7_a_refusal_is_undone_when_threads_are_to_be_had_again",
        ),
        (
            "after a refusal no thread is asked for any more",
            ROSTER,
            "Instant::now() + RETRY_AFTER;",
            "Instant::now() + 10_000 * RETRY_AFTER;",
            "refused_threads::guarantee_7_a_refusal_is_undone_when_threads_are_to_be_had_again",
        ),
    ],
    "8: a failed initializer breaks the pool": [
        (
            "an initializer that fails is overlooked",
            WORKER,
            "        Err(cause) => shared.break_down(Arc::new(cause)),",
            "        Err(_) => work(shared),",
            "guarantees::guarantee_8_an_initializer_that_fails_breaks_the_pool",
        ),
        (
            "what waits stays in the queue of the broken pool",
            SHARED,
            "        self.close_and_refuse(why, Verdict::Broken(Arc::clone(&cause)));",
            "        self.close(why);",
            "guarantees::guarantee_8_what_runs_when_the_pool_breaks_ends_well",
        ),
        (
            "the error does not show its cause",
            ERROR,
            "write!(f, \"the pool is broken: {cause}\"),",
            "{\n                let _ = cause;\n                f.write_str(\"the pool is broken\")\n            }",
            "guarantees::guarantee_8_an_initializer_that_fails_breaks_the_pool",
        ),
    ],
    "9: spans and the runtime": [
        (
            "a job runs outside of its span",
            SPAN,
            "    report(|| entered = Some(span.enter()));",
            "    report(|| entered = Some(span.enter()).filter(|_| false));",
            "spans::guarantee_9_the_span_at_submit_is_current_in_the_job",
        ),
        (
            "a map takes no span along",
            MAP,
            "            span: span::current(),",
            "            span: None,",
            "spans::guarantee_9_the_span_at_submit_is_current_in_the_job",
        ),
        (
            "a job that is cancelled keeps its span",
            CELL,
            "        if span.is_some() {\n            let_go(SPAN, span);\n        }\n",
            "        mem::forget(span);\n",
            "spans::guarantee_9_a_job_that_ended_keeps_nothing_of_its_span",
        ),
        (
            "the runtime is left at once",
            WORKER,
            "    let _runtime = shared.config",
            "    let _ = shared.config",
            "spans::guarantee_9_the_runtime_is_entered",
        ),
    ],
    "10: idle pools use no processor time": [
        (
            "an idle worker yields instead of sleeping",
            IDLE,
            "                thread::park();\n                continue;",
            "                thread::yield_now();\n                continue;",
            "guarantees::guarantee_10_an_idle_pool_uses_no_processor_time",
        ),
        (
            "an idle worker looks up ten times a second",
            IDLE,
            "                thread::park();\n                continue;",
            "                thread::park_timeout(std::time::Duration::from_millis(100));\n                continue;",
            "guarantees::guarantee_10_an_idle_pool_uses_no_processor_time",
        ),
    ],
    "11: `scope` is sound": [
        (
            "the scope does not wait for its jobs",
            SCOPE,
            "        scope.ledger.wait();\n",
            "",
            "scope::guarantee_11_all_jobs_have_ended_when_the_scope_returns",
        ),
        (
            "a job counts as ended before its closure runs",
            SCOPE,
            "        let release = Release(&self.ticket);\n        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);\n        let Contents",
            "        let release = ();\n        drop(Release(&self.ticket));\n        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);\n        let Contents",
            "scope::guarantee_11_a_job_whose_handle_was_leaked_has_ended_too",
        ),
        (
            "a job that does not run counts as ended before its closure is dropped",
            SCOPE,
            "        let release = Release(&self.ticket);\n        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);\n        let_go",
            "        let release = ();\n        drop(Release(&self.ticket));\n        let queued = mem::replace(&mut self.inside.lock().contents, Contents::Gone);\n        let_go",
            "scope::guarantee_11_a_leaked_job_that_is_cancelled_is_gone_when_the_scope_ends",
        ),
        (
            "a result that nobody wants is not dropped",
            SCOPE,
            "                    let_go(\"the destructor of a job's result\", value);",
            "                    mem::forget(value);",
            "scope::guarantee_11_closure_and_result_are_gone_when_the_scope_returns",
        ),
    ],
    "`submit`": [
        (
            "jobs start last come, first served",
            QUEUE,
            "        entrance.jobs.push_back(job);",
            "        entrance.jobs.push_front(job);",
            "workers::jobs_start_in_the_order_in_which_they_were_submitted",
        ),
        (
            "it does not block on a full pool",
            POOL,
            "                None => wait_for_place(room),",
            "                None => room.take_anyway(),",
            "bounded::submit_blocks_until_there_is_room",
        ),
        (
            "it blocks in an own worker",
            POOL,
            "                Some(_) => room.take_anyway(),",
            "                Some(_) => wait_for_place(room),",
            "bounded::submit_in_an_own_worker_goes_over_the_capacity",
        ),
        (
            "who waits for room is not released by the end of the pool",
            ROOM,
            "        waiting.into_values().collect()",
            "        waiting.into_values().take(0).collect()",
            "bounded::blocked_submits_are_released_by_the_end_of_the_pool",
        ),
    ],
    "`try_submit`": [
        (
            "there is one place too many",
            ROOM,
            "        let free = places.taken < self.capacity",
            "        let free = places.taken <= self.capacity",
            "bounded::try_submit_on_a_full_pool_gives_the_closure_back",
        ),
        (
            "a full pool says that it is shut down",
            ERROR,
            "        matches!(self.why, Refusal::Closed(Closed::Shutdown))",
            "        !matches!(self.why, Refusal::Closed(Closed::Broken(_)))",
            "bounded::try_submit_on_a_full_pool_gives_the_closure_back",
        ),
    ],
    "`submit_async`": [
        (
            "last polled is first served",
            ROOM,
            "places.waiting.pop_first()?",
            "places.waiting.pop_last()?",
            "bounded::submit_async_serves_first_who_polled_first",
        ),
        (
            "dropped with a granted place, it takes that along",
            ROOM,
            "            places.taken -= 1;\n            return self.grant(places);",
            "            return None;",
            "bounded::submit_async_dropped_with_a_granted_place_passes_it_on",
        ),
    ],
    "`queue_capacity`": [
        (
            "a job keeps its place until it ends",
            WORKER,
            "    fn running(&mut self) {\n        self.shared.give_back_place();\n    }\n\n    fn ended(&mut self, panicked: bool, wakes: bool) {\n",
            "    fn ended(&mut self, panicked: bool, wakes: bool) {\n        self.shared.give_back_place();\n",
            "bounded::place_comes_back_when_a_job_starts_not_when_it_ends",
        ),
    ],
    "`shutdown`": [
        (
            "the pool takes jobs after it",
            SHARED,
            "        self.queue.close(why);\n        self.idle.close();",
            "        drop(why);\n        self.idle.close();",
            "shutdown::every_call_after_shutdown_is_rejected_and_gives_the_closure_back",
        ),
        (
            "it is ready while a job runs",
            ROSTER,
            "        if finished && staff.workers == 0 && !",
            "        if finished && !",
            "shutdown::shutdown_is_not_ready_while_a_job_runs",
        ),
        (
            "`join` does not wait for the threads",
            SHUTDOWN,
            "            self.shared.roster.join_threads();",
            "",
            "shutdown::join_waits_for_the_thread_locals_of_the_workers",
        ),
        (
            "`join_timeout` counts the workers that there were",
            ROSTER,
            "        (staff.workers, staff.peak)",
            "        (staff.peak, staff.peak)",
            "shutdown::join_timeout_tells_how_many_workers_are_left_and_may_be_tried_again",
        ),
        (
            "waited for in a worker it never ends",
            ROSTER,
            "        if inside.len() == staff.workers {",
            "        if false {",
            "shutdown::workers_that_all_wait_go_on",
        ),
    ],
    "`shutdown_now`": [
        (
            "it cancels nothing",
            SHARED,
            "        self.close_and_refuse(Closed::Shutdown, Verdict::Cancelled);",
            "        self.close(Closed::Shutdown);",
            "shutdown::shutdown_now_cancels_what_is_queued_before_it_returns",
        ),
        (
            "running jobs are not asked to end",
            SHARED,
            "        self.stopping.store(true, Ordering::Release);",
            "",
            "shutdown::running_job_sees_the_cancel_request_of_shutdown_now_and_its_result_counts",
        ),
    ],
    "`cancel_pending`": [
        (
            "it says how many too few",
            SHARED,
            "        self.refuse_condemned();\n        condemned",
            "        self.refuse_condemned();\n        condemned.saturating_sub(1)",
            "shutdown::cancel_pending_cancels_what_is_queued_and_leaves_the_pool_open",
        ),
    ],
    "`metrics`, `max_workers`": [
        (
            "a refused `try_submit` is not counted",
            POOL,
            "            shared.counters.rejected();\n",
            "",
            "bounded::rejected_counts_every_refused_call",
        ),
        (
            "a worker with a job counts as idle",
            METRICS,
            "workers.saturating_sub(starting as u64 + running.saturating_sub(helped))",
            "workers.saturating_sub(starting as u64)",
            "workers::metrics_add_up_whatever_happened",
        ),
        (
            "the default size is one larger",
            BUILDER,
            "    (processors + 4).min(32)",
            "    (processors + 5).min(32)",
            "workers::the_default_size_is_as_python_has_it",
        ),
    ],
    "drop of a pool": [
        (
            "it does not wait",
            POOL,
            "            shutdown.join();\n",
            "            drop(shutdown);\n",
            "shutdown::drop_of_a_pool_runs_the_backlog_before_it_returns",
        ),
        (
            "it waits in an own worker",
            POOL,
            "        if self.shared.own_badge().is_none() && !thread::panicking() {",
            "        if !thread::panicking() {",
            "shutdown::drop_of_the_last_reference_in_a_job_does_not_wait_for_other_workers",
        ),
        (
            "it waits while the thread is panicking",
            POOL,
            "        if self.shared.own_badge().is_none() && !thread::panicking() {",
            "        if self.shared.own_badge().is_none() {",
            "shutdown::drop_while_the_thread_is_panicking_does_not_wait",
        ),
    ],
    "workers": [
        (
            "a thread is started though one is idle",
            WORKER,
            "    shared.counters.demand().max(least)",
            "    shared.counters.demand().max(least) + 1",
            "workers::a_job_goes_to_an_idle_worker_before_a_thread_is_started",
        ),
        (
            "there is one more than allowed",
            SHARED,
            "Roster::new(max_workers)",
            "Roster::new(max_workers + 1)",
            "workers::as_many_threads_as_jobs_that_run_and_no_more_than_allowed",
        ),
        (
            "a worker is idle a moment after its result can be seen",
            CELL,
            "            settle(wakes);\n            inner.stage = Stage::from(outcome);\n            drop(inner);\n",
            "            inner.stage = Stage::from(outcome);\n            drop(inner);\n            std::thread::yield_now();\n            settle(wakes);\n",
            "workers::a_job_is_counted_and_its_worker_idle_before_the_result_can_be_seen",
        ),
        (
            "idle ones stay although there is a `keep_alive`",
            WORKER,
            "            leave_at = shared.config.keep_alive.and_then(until);",
            "            leave_at = shared.config.keep_alive.and_then(until).filter(|_| false);",
            "workers::idle_workers_leave_after_keep_alive_and_others_come_when_needed",
        ),
        (
            "a pool of no workers is accepted",
            BUILDER,
            "        if self.max_workers == 0 {",
            "        if false {",
            "workers::wrong_options_are_refused_by_name",
        ),
    ],
    "`global`": [
        (
            "it captures a runtime",
            GLOBAL,
            "builder.without_runtime().build()",
            "builder.build()",
            "workers::the_global_pool_has_the_default_size_and_no_runtime",
        ),
        (
            "it has another size",
            GLOBAL,
            "builder.without_runtime().build()",
            "builder.without_runtime().max_workers(1).build()",
            "workers::the_global_pool_has_the_default_size_and_no_runtime",
        ),
    ],
    "`scope`": [
        (
            "a panic that was not joined is lost",
            SCOPE,
            "                self.ticket.failed(format!(\n                    \"a scoped job that was not joined panicked",
            "                drop(format!(\n                    \"a scoped job that was not joined panicked",
            "scope::a_panic_of_a_job_that_was_not_joined_comes_out_of_the_scope",
        ),
        (
            "a panic that was joined comes out of it",
            SCOPE,
            "                if !error.is_deadlock() {\n                    handle.ledger.forgive(number);\n                }\n",
            "                let _ = number;\n",
            "scope::a_panic_of_a_job_that_was_joined_is_an_error_and_no_more",
        ),
        (
            "work is skipped in silence",
            SCOPE,
            "        self.ticket.failed(format!(\n            \"a scoped job that was not joined did not run",
            "        drop(format!(\n            \"a scoped job that was not joined did not run",
            "scope::no_work_is_skipped_in_silence",
        ),
    ],
    "`JoinHandle`: drop, `join`, `join_timeout`, `try_join`": [
        (
            "dropping it cancels",
            HANDLE,
            "            cell.detach();\n",
            "            cell.cancel();\n            cell.detach();\n",
            "handle::a_dropped_handle_detaches_its_job",
        ),
        (
            "`join` panics in a runtime",
            HANDLE,
            "        self.wait(None)\n    }\n",
            "        assert!(tokio::runtime::Handle::try_current().is_err());\n        self.wait(None)\n    }\n",
            "handle::join_inside_a_runtime_does_not_panic",
        ),
        (
            "a timeout cancels the job",
            HANDLE,
            "        outcome.unwrap_or(Err(JoinError::timeout()))\n",
            "        outcome.unwrap_or_else(|| {\n            self.cancel();\n            Err(JoinError::timeout())\n        })\n",
            "handle::after_a_timeout_the_handle_is_as_it_was",
        ),
        (
            "`try_join` panics when the result was taken",
            HANDLE,
            "            Half::Waits(_) => self.take(),\n            Half::Took(_) => None,",
            "            Half::Waits(_) => self.take(),\n            Half::Took(_) => panic!(\"{TAKEN}\"),",
            "handle::try_join_takes_what_is_there_and_never_panics",
        ),
        (
            "taking a result twice panics without a word",
            HANDLE,
            "            Half::Took(_) => panic!(\"{TAKEN}\"),",
            "            Half::Took(_) => panic!(),",
            "handle::taking_a_result_twice_panics_and_says_so",
        ),
    ],
    "`cancel`, `is_cancelled`, `is_running`, `is_finished`": [
        (
            "callbacks run before what the closure captured is dropped",
            CELL,
            "        let_go(\"the destructor of a job's closure\", closure);\n        if span.is_some() {\n            let_go(SPAN, span);\n        }\n        self.home.withdrawn(husk, condemned.is_none());\n        self.resolve(Err(error), |_| self.home.not_run());\n",
            "        drop(span);\n        self.home.withdrawn(husk, condemned.is_none());\n        self.resolve(Err(error), |_| self.home.not_run());\n        let_go(\"the destructor of a job's closure\", closure);\n",
            "handle::a_cancel_drops_captures_then_runs_callbacks_then_wakes_then_returns",
        ),
        (
            "a running job does not see the request",
            CELL,
            "*cancel_requested = true;\n                false",
            "let _ = cancel_requested;\n                false",
            "handle::cancel_of_a_running_job_is_a_request_and_of_a_finished_one_nothing",
        ),
        (
            "`is_cancelled` is true while the callbacks run",
            HANDLE,
            "            State::Finished(Ending::Cancelled) | State::Taken(Ending::Cancelled)\n",
            "            State::Withdrawing | State::Finished(Ending::Cancelled) | State::Taken(Ending::Cancelled)\n",
            "handle::until_the_callbacks_have_ended_a_cancel_is_not_seen",
        ),
        (
            "`is_running` is always false",
            HANDLE,
            "        self.state() == State::Running",
            "        self.state() == State::Running && false",
            "handle::a_slow_callback_delays_the_join_and_the_job_runs_until_then",
        ),
        (
            "`is_finished` is false for a cancelled job",
            HANDLE,
            "        matches!(self.state(), State::Finished(_) | State::Taken(_))\n",
            "        matches!(self.state(), State::Finished(_) | State::Taken(_)) && !self.is_cancelled()\n",
            "handle::a_cancelled_job_never_runs_and_is_cancelled_again_and_again",
        ),
        (
            "`cancel_requested` asks the outermost job",
            CONTEXT,
            "ask(jobs.borrow().last())",
            "ask(jobs.borrow().first())",
            "executors::a_cancel_of_a_running_job_is_seen_inside",
        ),
    ],
    "`add_done_callback`": [
        (
            "callbacks run in the opposite order",
            CELL,
            "        for callback in self.callbacks {",
            "        for callback in self.callbacks.into_iter().rev() {",
            "handle::callbacks_run_in_the_order_added_and_a_panic_in_one_harms_nothing",
        ),
        (
            "a panic in one loses those after it",
            CELL,
            "            contain(\"a done callback\", || callback(outcome.as_ref()));",
            "            let mut panicked = true;\n            contain(\"a done callback\", || {\n                callback(outcome.as_ref());\n                panicked = false;\n            });\n            if panicked {\n                return;\n            }",
            "handle::callbacks_run_in_the_order_added_and_a_panic_in_one_harms_nothing",
        ),
    ],
    "`tag`, `cancel_on_drop`, `Debug`": [
        (
            "the first poll takes the key away",
            HANDLE,
            "        let output = ready!(this.future.poll(context));\n        Poll::Ready((this.key.take().expect(KEY_GONE), output))",
            "        let key = this.key.take();\n        let output = ready!(this.future.poll(context));\n        Poll::Ready((key.expect(KEY_GONE), output))",
            "handle::a_tag_comes_out_with_the_result",
        ),
        (
            "dropping a `CancelOnDrop` cancels nothing",
            HANDLE,
            "            handle.cancel();\n",
            "            let _ = handle;\n",
            "handle::cancel_on_drop_cancels_unless_joined_or_disarmed",
        ),
        (
            "`disarm` cancels",
            HANDLE,
            "        self.handle.take().expect(DISARMED)",
            "        self.cancel();\n        self.handle.take().expect(DISARMED)",
            "handle::cancel_on_drop_cancels_unless_joined_or_disarmed",
        ),
        (
            "`Debug` does not name the outcome",
            HANDLE,
            "write!(f, \"Finished: {ending:?}\")?",
            "write!(f, \"{:.8}\", format!(\"Finished: {ending:?}\"))?",
            "handle::debug_names_the_state_and_the_kind_of_outcome",
        ),
    ],
    "the order in which a job ends": [
        (
            "the job is counted before its callbacks run",
            CELL,
            "            if self.resolve(outcome, |wakes| watch.ended(panicked, wakes)) {",
            "            watch.ended(panicked, false);\n            if self.resolve(outcome, |_| {}) && false {",
            "handle::a_job_ends_in_the_promised_order",
        ),
        (
            "a result that nobody wants is dropped after the worker is idle",
            CELL,
            "                let_go(\"the destructor of a job's result\", outcome);\n                settle(false);",
            "                settle(false);\n                let_go(\"the destructor of a job's result\", outcome);",
            "handle::a_result_that_nobody_wants_is_dropped_by_the_worker_before_it_is_free",
        ),
    ],
    "`JoinError`": [
        (
            "a panic's text lacks its message",
            ERROR,
            "write!(f, \"the job panicked: {message}\")?,",
            "write!(f, \"the job panicked{}\", &message[..0])?,",
            "handle::a_panic_is_an_error_with_its_payload_message_and_origin",
        ),
        (
            "it names a place in the crate, not that of `submit`",
            POOL,
            "    #[track_caller]\n    pub fn submit<F, T>",
            "    pub fn submit<F, T>",
            "handle::a_panic_is_an_error_with_its_payload_message_and_origin",
        ),
        (
            "a timeout is no `TimedOut`",
            ERROR,
            "            Kind::Timeout => io::ErrorKind::TimedOut,",
            "            Kind::Timeout => io::ErrorKind::Other,",
            "handle::errors_turn_into_io_errors_and_stay_inside",
        ),
    ],
    "`as_completed`": [
        (
            "the size hint is not exact",
            AS_COMPLETED,
            "        (self.len(), Some(self.len()))",
            "        (0, Some(self.total))",
            "as_completed::the_size_hint_is_exact_all_along",
        ),
        (
            "`into_pending` mixes the order up",
            AS_COMPLETED,
            "sort_unstable_by_key(|future| future.number);",
            "sort_unstable_by_key(|future| std::cmp::Reverse(future.number));",
            "as_completed::into_pending_gives_what_was_not_handed_out_in_the_order_added",
        ),
        (
            "what is done does not come at the timeout",
            AS_COMPLETED,
            "        last.ok_or_else(|| self.time_out())",
            "        last.filter(|_| false).ok_or_else(|| self.time_out())",
            "as_completed::what_is_done_comes_before_the_error_though_others_wake_themselves_sync",
        ),
        (
            "the error comes again and again",
            AS_COMPLETED,
            "        self.over = true;\n",
            "        self.over = false;\n",
            "as_completed::at_the_timeout_comes_what_is_done_then_one_error_then_the_end_for_ever",
        ),
    ],
    "`wait`": [
        (
            "`FirstCompleted` waits for all",
            WAIT,
            "                ReturnWhen::FirstCompleted => |_| true,",
            "                ReturnWhen::FirstCompleted => |_| false,",
            "wait::first_completed_ends_with_the_first_one_in_whatever_place",
        ),
        (
            "`FirstException` waits for all",
            WAIT,
            "        Some((Ending::Panicked | Ending::Refused, _)) => true,",
            "        Some((Ending::Panicked | Ending::Refused, _)) => false,",
            "wait::first_exception_ends_with_a_panic",
        ),
        (
            "an `Err` does not end `wait_results`",
            WAIT,
            "        is_failure(self, Result::is_err)",
            "        is_failure(self, |_| false)",
            "wait::an_err_ends_wait_results_and_not_wait",
        ),
        (
            "the handles come in another order",
            WAIT,
            "                done.sort_unstable_by_key(|(number, _)| *number);",
            "                done.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));",
            "wait::all_that_are_done_at_the_end_are_in_done_in_the_order_given",
        ),
    ],
    "`map`, `map_unordered`": [
        (
            "results of `map` come in another order",
            MAP,
            "        self.push_back(piece);",
            "        self.push_front(piece);",
            "map::map_keeps_the_order_of_the_items",
        ),
        (
            "results of `map_unordered` come in the order of the items",
            MAP,
            "    MapUnordered, MapUnorderedIter, FuturesUnordered<Piece<U>>, \"MapUnordered\"",
            "    MapUnordered, MapUnorderedIter, VecDeque<Piece<U>>, \"MapUnordered\"",
            "map::map_unordered_gives_them_as_they_are_done",
        ),
        (
            "the input is touched before it begins",
            MAP,
            "        let stop = Arc::new(AtomicBool::new(false));\n        let source = Items {",
            "        let mut items = items;\n        let (first, stop) = (items.next(), Arc::new(AtomicBool::new(false)));\n        let items = first.into_iter().chain(items);\n        let source = Items {",
            "map::it_is_lazy_until_started_polled_or_iterated",
        ),
        (
            "a bad item loses its chunk-mates",
            MAP,
            "    while items.len() > 0 && !stopped() {\n        let some",
            "    if items.len() > 0 && !stopped() {\n        let some",
            "map::a_bad_item_never_loses_its_chunk_mates_and_iteration_goes_on",
        ),
        (
            "after a timeout the rest still runs",
            MAP,
            "    fn time_out(&mut self) -> JoinError {\n        self.end();",
            "    fn time_out(&mut self) -> JoinError {\n        self.pieces = P::default();\n        self.end();",
            "map::at_the_timeout_comes_what_is_done_then_one_error_then_the_end_and_the_rest_never_runs",
        ),
    ],
    "`block_on` and time limits": [
        (
            "a wait takes the wake-up of the wait around it",
            SLEEPER,
            "        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());",
            "        let spare = SPARE.try_with(|spare| spare.borrow().last().cloned());",
            "handle::waits_inside_waits_do_not_take_each_others_wakeups",
        ),
        (
            "a limit too long for the clock is over at once",
            LIMIT,
            "            deadline: Instant::now().checked_add(limit),",
            "            deadline: Instant::now().checked_add(limit).or_else(|| Some(Instant::now())),",
            "as_completed::a_limit_too_long_for_the_clock_is_none",
        ),
    ],
    "threads that are unparked for nothing": [
        (
            "a worker gets up though nobody called it",
            IDLE,
            "                thread::park();\n                continue;",
            "                thread::park();\n                break;",
            "unparks::workers_that_are_unparked_for_nothing_run_each_job_once",
        ),
        (
            "a wait with a limit ends early",
            SLEEPER,
            "            thread::park_timeout(left);\n        }\n        true",
            "            thread::park_timeout(left);\n            return bell.rung.swap(false, Ordering::Acquire);\n        }\n        true",
            "unparks::a_time_limit_is_kept_when_the_thread_is_unparked_all_along",
        ),
        (
            "a worker leaves before its time",
            IDLE,
            "                thread::park_timeout(left);\n",
            "                thread::park_timeout(left);\n                if self.get_up(bed) {\n                    return Morning::Expired;\n                }\n",
            "unparks::a_worker_unparked_for_nothing_stays_for_its_time",
        ),
        (
            "a wake-up is lost when other code takes the token of `unpark`",
            SLEEPER,
            "        if bell.rung.swap(false, Ordering::Acquire) {\n            return true;\n        }\n        if refuses_here()",
            "        bell.rung.store(false, Ordering::Relaxed);\n        if refuses_here()",
            "unparks::a_future_that_parks_in_its_poll_is_polled_again_when_its_waker_was_called",
        ),
    ],
    "after `fork`": [
        (
            "drop of a pool waits for threads that are not there",
            POOL,
            "        if self.shared.is_forked() {",
            "        if false {",
            "fork::in_a_forked_process_an_old_pool_can_be_dropped_and_new_ones_work_with_limits_and_nested_joins",
        ),
        (
            "it takes the other process's timer and locks for its own",
            "src/process.rs",
            "            if node.process == process {",
            "            if true {",
            "fork::in_a_forked_process_an_old_pool_can_be_dropped_and_new_ones_work_with_limits_and_nested_joins",
        ),
    ],
    "`Job`, `Executor`, `ExecutorExt`": [
        (
            "a panic of the closure comes out of `run`",
            CELL,
            "                watch.woken();\n            }\n",
            "                watch.woken();\n            }\n            assert!(!panicked);\n",
            "executors::running_a_job_never_unwinds",
        ),
        (
            "`refuse` takes another error",
            JOB,
            "            cell.refuse(error);",
            "            drop(error);\n            cell.refuse(JoinError::cancelled());",
            "executors::a_job_that_is_refused_resolves_with_that_error",
        ),
        (
            "a pointer to an executor drops the job",
            EXECUTOR,
            "                (**self).execute(job);",
            "                drop(job);",
            "executors::pointers_to_executors_are_executors_and_so_are_trait_objects",
        ),
        (
            "a pointer to a pool is not taken for the pool",
            EXECUTOR,
            "                (**self).as_thread_pool()",
            "                None",
            "executors::a_pool_through_the_trait::maps_without_blocking_while_it_is_full",
        ),
    ],
    "`InlineExecutor`, tokio's, rayon's": [
        (
            "`InlineExecutor` runs it in another thread",
            EXECUTOR,
            "impl Executor for InlineExecutor {\n    fn execute(&self, job: Job) {\n        job.run();",
            "impl Executor for InlineExecutor {\n    fn execute(&self, job: Job) {\n        let _ = std::thread::spawn(|| job.run()).join();",
            "executors::inline_runs_at_once_in_the_caller",
        ),
        (
            "tokio's runs it on a thread for tasks",
            "src/executor/tokio.rs",
            "            self.spawn_blocking(move || job.run());",
            "            self.spawn(async move { job.run() });",
            "executors::tokio_handle::jobs_run_on_its_blocking_pool",
        ),
        (
            "rayon's runs it in the caller",
            "src/executor/rayon.rs",
            "        self.spawn_fifo(move || job.run());",
            "        job.run();",
            "executors::rayon_pool::jobs_run_on_its_threads",
        ),
    ],
}
