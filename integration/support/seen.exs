defmodule Ringbridge.Seen do
  @moduledoc """
  An ExUnit formatter beside the usual one: what came of each test, a line `outcome<TAB>module.name` each, in
  `exunit.txt` in the folder that `scripts/run-tests` names, `build/test` without it. `integration/matrix/page` makes
  its table of it, as it does of pytest's JUnit file.
  """
  use GenServer

  @folder Path.expand("../../build/test", __DIR__)

  @impl GenServer
  def init(_options) do
    folder = System.get_env("RINGBRIDGE_TEST_RESULTS") || @folder
    File.mkdir_p!(folder)
    {:ok, File.open!(Path.join(folder, "exunit.txt"), [:write, :utf8])}
  end

  @impl GenServer
  def handle_cast({:test_finished, %ExUnit.Test{state: {:excluded, _why}}}, file),
    do: {:noreply, file}

  def handle_cast({:test_finished, test}, file) do
    IO.puts(file, "#{outcome(test.state)}\t#{inspect(test.module)}.#{test.name}")
    {:noreply, file}
  end

  def handle_cast(_other, file), do: {:noreply, file}

  defp outcome(nil), do: "passed"
  defp outcome({:skipped, why}), do: "skipped: #{why}"
  defp outcome({_failed_or_invalid, _why}), do: "failed"
end
