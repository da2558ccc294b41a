# The tests here need more than the client: a bridge, its workers, the virtual environment (`make all`).
ExUnit.start(timeout: 120_000)
