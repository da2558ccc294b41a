ExUnit.start(timeout: 60_000)
