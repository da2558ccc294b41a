defmodule Ringbridge.RemoteJobs do
  @moduledoc "What the workers of remote_workers_test.exs do, by opcode; loaded by their VMs, too."
  @behaviour Ringbridge.BeamWorkerLoop

  alias Ringbridge.BeamWorkerLoop.Job

  @impl true
  def init({:tells, _pid} = state), do: {:ok, state}
  def init(other), do: {:ok, other}

  @impl true
  # 0: what came; 1: fails; 2: sleeps so many ms; 3: parts; 4: progress; 5: raises; 6: its process is killed;
  # 7: as many bytes as asked; 8: tells who runs it, and never ends; 9: about the job; 10: a term; 11: nothing
  def handle_job(%{opcode: 0} = job, _state),
    do: {:ok, if(job.term?, do: {:term, job.payload}, else: job.payload)}

  def handle_job(%{opcode: 1}, _state), do: {:error, 7, "as asked"}

  def handle_job(%{opcode: 2} = job, _state) do
    Process.sleep(String.to_integer(job.payload))
    {:ok, job.payload}
  end

  def handle_job(%{opcode: 3} = job, _state) do
    for n <- 1..String.to_integer(job.payload), do: :ok = Job.emit(job, "part #{n}")
    {:ok, ""}
  end

  def handle_job(%{opcode: 4} = job, {:tells, pid}) do
    # The newest report counts, so each waits until it has been seen.
    for n <- 1..3 do
      :ok = Job.progress(job, %{step: n})
      send(pid, {:runs, self(), job.id})
      receive do: (:go_on -> :ok)
    end

    {:ok, "done"}
  end

  def handle_job(%{opcode: 5}, _state), do: raise("on purpose")
  def handle_job(%{opcode: 6}, _state), do: Process.exit(self(), :kill)

  def handle_job(%{opcode: 7} = job, _),
    do: {:ok, :binary.copy("x", String.to_integer(job.payload))}

  def handle_job(%{opcode: 8} = job, {:tells, pid}) do
    send(pid, {:runs, self(), job.id})
    Process.sleep(:infinity)
  end

  def handle_job(%{opcode: 9} = job, _state),
    do:
      {:ok, %{slot: job.slot, left: Job.time_left(job), trace: job.trace, priority: job.priority}}

  def handle_job(%{opcode: 10} = job, _state), do: {:ok, {:answered, job.payload}}
  def handle_job(%{opcode: 11}, _state), do: :nothing_of_the_kind
end
