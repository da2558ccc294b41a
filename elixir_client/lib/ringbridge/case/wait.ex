defmodule Ringbridge.Case.Wait do
  @moduledoc false
  # Looks until it is so: for what cannot tell us itself, as the state of another process.

  @pause_ms 10

  @doc "Returns when `look` is true; raises after `timeout_ms`."
  @spec until(String.t(), pos_integer(), (() -> boolean())) :: :ok
  def until(what, timeout_ms, look) do
    case settled(timeout_ms, fn -> if look.(), do: :ok, else: "it was not so" end) do
      :ok -> :ok
      _why -> raise "not within #{timeout_ms} ms: #{what}"
    end
  end

  @doc "Returns :ok when `look` says so; after `timeout_ms` what it said last."
  @spec settled(pos_integer(), (() -> :ok | String.t())) :: :ok | String.t()
  def settled(timeout_ms, look),
    do: again(look, System.monotonic_time(:millisecond) + timeout_ms)

  defp again(look, until_ms) do
    case look.() do
      :ok ->
        :ok

      why ->
        if System.monotonic_time(:millisecond) >= until_ms do
          why
        else
          Process.sleep(@pause_ms)
          again(look, until_ms)
        end
    end
  end
end
