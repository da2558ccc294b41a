defmodule Ringbridge.Harness.Worker do
  @moduledoc false
  # What the harness's workers do, by role; in this VM, also behind a real bridge. `:lies` is for the harness's own tests: a worker
  # whose answers are changed on the way.
  @behaviour Ringbridge.BeamWorkerLoop

  alias Ringbridge.Harness.Payload

  @roles [:compute, :echo, :gate, :small]

  @spec roles() :: [atom()]
  def roles, do: @roles

  @impl true
  def init(role), do: {:ok, role}

  @impl true
  def handle_job(job, :compute), do: Payload.compute(job.payload)
  def handle_job(job, echo) when echo in [:echo, :small], do: {:ok, as_it_came(job)}

  # Tells who opens it that it is there, and waits.
  def handle_job(%{payload: {:gate, pid, tag}}, :gate) do
    ref = Process.monitor(pid)
    send(pid, {:at_gate, tag, self()})

    receive do
      :open -> {:ok, tag}
      {:DOWN, ^ref, _, _, _} -> :cancelled
    end
  end

  def handle_job(job, :lies) do
    with {:ok, <<head::binary-size(12), byte, rest::binary>>} <- Payload.compute(job.payload),
         do: {:ok, <<head::binary, Bitwise.bxor(byte, 1), rest::binary>>}
  end

  defp as_it_came(%{term?: true, payload: value}), do: {:term, value}
  defp as_it_came(job), do: job.payload
end
