# Here and not in the test files, which are compiled side by side: two that require one file would race.
Code.require_file("support/repeat.exs", __DIR__)
Code.require_file("../../integration/support/real_jobs.exs", __DIR__)

# Who waits for what must come is patient: the machine may be busy with other things.
ExUnit.start(timeout: 240_000, assert_receive_timeout: 60_000, capture_log: true)
