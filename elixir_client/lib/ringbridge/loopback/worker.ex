defmodule Ringbridge.Loopback.Worker do
  @moduledoc false
  # A worker whose work is a function: its state.
  @behaviour Ringbridge.BeamWorkerLoop

  @impl true
  def init(work), do: {:ok, work}

  @impl true
  def handle_job(job, work) when is_function(work, 1), do: work.(job.payload)
  def handle_job(job, work), do: work.(job.payload, job)
end
