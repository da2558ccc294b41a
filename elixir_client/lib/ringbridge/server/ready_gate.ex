defmodule Ringbridge.Server.ReadyGate do
  @moduledoc """
  The last child of a server that waits at its start: it returns when the bridge is ready, and leaves no process.
  """

  alias Ringbridge.Server

  @doc "Returns when the server's bridge is ready; it is no process."
  @spec start_link(Server.name(), pos_integer()) :: :ignore | {:error, {:shutdown, String.t()}}
  def start_link(name, timeout_ms) do
    case Server.await(name, timeout_ms) do
      :ok -> :ignore
      {:error, why} -> {:error, {:shutdown, "the bridge is not ready: " <> tell(name, why)}}
    end
  end

  defp tell(name, :timeout) do
    case Server.status(name) do
      {:ok, %{last_end: %{how: how, said: said}}} ->
        "its last attempt ended (#{inspect(how)}): #{said}"

      _none ->
        "it has not said so in time (option :ready_timeout)"
    end
  end

  defp tell(_name, {:gave_up, %{how: how, said: said}}),
    do: "all attempts have failed (#{inspect(how)}): #{said}"

  defp tell(_name, why), do: inspect(why)
end
