defmodule Ringbridge.Soak.Judge do
  @moduledoc """
  What an answer is called, and whether its bytes are the caller's own.

  A label is an atom: `:ok`, a reason's name, or how it ended without an answer (`:gave_up`, `:lost`).
  """

  @mib 1_048_576

  @type outcome :: {:answer, term()} | {:exit, term()} | {:late, integer(), term()}
  @type label :: atom() | {:wrong, String.t()}

  @doc "What may become of any job while workers die, hang and are replaced and an operator is at work."
  @spec everyday() :: [atom()]
  def everyday do
    [:overloaded, :worker_crashed, :worker_hung, :cancelled, :draining, :circuit_open] ++
      [:deadline_exceeded]
  end

  @spec label(term(), outcome()) :: label()
  def label(expected, {:answer, {:ok, back}}), do: own(expected, back)
  def label(expected, {:answer, {:ok, back, %{job: _}}}), do: own(expected, back)
  def label(_expected, {:answer, {:error, reason}}), do: reason(reason)
  def label(_expected, {:exit, :timeout}), do: :gave_up
  def label(_expected, {:exit, {:nodedown, _node}}), do: :lost
  def label(_expected, {:exit, :noconnection}), do: :lost
  def label(_expected, {:late, ms, outcome}), do: {:wrong, "#{ms} ms late: #{brief(outcome)}"}
  def label(_expected, other), do: {:wrong, "no answer of this protocol: #{brief(other)}"}

  defp own(expected, back) do
    if back === expected, do: :ok, else: {:wrong, "not its own bytes: #{brief(back)}"}
  end

  @doc "The label of a reason of docs/errors.md, if it is one that this soak may bring about."
  @spec reason(term()) :: label()
  def reason({name, %{retry_after_ms: ms}})
      when name in [:overloaded, :circuit_open] and ms in 1..60_000,
      do: name

  def reason({:too_large, @mib}), do: :too_large
  def reason({:stage, n, _who, reason}) when n in 1..2, do: reason(reason)

  def reason(reason) when reason in [:cancelled, :deadline_exceeded, :draining], do: reason

  # The signals that the soak sends, and those of the budgets of a job that must stop; no other may end a worker.
  def reason({:worker_crashed, %{signal: signal, oom: false}}) when signal in [9, 11, 15],
    do: :worker_crashed

  # Who may be found hung is held against those that were left standing (soak_test.exs).
  def reason({:worker_broke, :no_heartbeat}), do: :worker_hung

  def reason(reason), do: {:wrong, "must not fail so: #{brief(reason)}"}

  @spec brief(term()) :: String.t()
  def brief(term), do: inspect(term, limit: 12, printable_limit: 60)
end
