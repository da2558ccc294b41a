defmodule Ringbridge.Server.OsProcess do
  @moduledoc """
  A process of the operating system that is not taken for another one: its id and the time of its start.

  A process id is given again once its process has been reaped; the two together are not (proc(5), `starttime`, in ticks
  since boot).
  """

  @enforce_keys [:os_pid, :started]
  defstruct [:os_pid, :started]

  @type t :: %__MODULE__{os_pid: pos_integer(), started: non_neg_integer()}

  @doc "The process that has this id now, or `nil`."
  @spec identify(pos_integer()) :: t() | nil
  def identify(os_pid) do
    case look(os_pid) do
      {_state, started} -> %__MODULE__{os_pid: os_pid, started: started}
      nil -> nil
    end
  end

  @doc "Whether it runs, or is stopped. A zombie does neither: it holds nothing but its id."
  @spec alive?(t()) :: boolean()
  def alive?(%__MODULE__{os_pid: os_pid, started: started}) do
    case look(os_pid) do
      {state, ^started} -> state not in ["Z", "X"]
      _gone_or_another -> false
    end
  end

  @doc """
  Sends a signal (`"KILL"`), unless it is gone. Between look and signal it would have to end, be reaped, and its id be given
  again.
  """
  @spec signal(t(), String.t()) :: :ok
  def signal(%__MODULE__{} = process, name) do
    # The shell's own kill: a small image has no program of that name.
    if alive?(process), do: :os.cmd(~c"kill -#{name} #{process.os_pid}")
    :ok
  end

  # What stands before the last parenthesis is the program's name, and may hold anything.
  defp look(os_pid) do
    with {:ok, stat} <- File.read("/proc/#{os_pid}/stat") do
      fields = stat |> String.split(")") |> List.last() |> String.split()
      {hd(fields), fields |> Enum.at(19) |> String.to_integer()}
    else
      {:error, _gone} -> nil
    end
  end
end
