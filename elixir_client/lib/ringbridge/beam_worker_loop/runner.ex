defmodule Ringbridge.BeamWorkerLoop.Runner do
  @moduledoc false
  # Runs one job in a process of its own, linked with its server, the loop or the process of its slot (which trap exits), so that it ends when that
  # does and nothing that it does ends that. The payload is decoded and the answer encoded there, too: a large term
  # is never the loop's.
  #
  # To its server: {ref, :part | :progress, payload}, {ref, :pulse}, and once {ref, :done, outcome, run_us}.
  require Logger

  alias Ringbridge.BeamWorkerLoop.Job

  # As in the other kits: the answer is too large, and the handler failed as its language fails.
  @too_large 65_280
  @no_answer 65_281
  @raised 65_282
  @message_bytes_max 1_024

  @type outcome ::
          {:ok, Job.payload()} | {:failed, 0..65_535, binary()} | :cancelled

  @doc "`options` are the loop's: `:module`, and whether payloads are decoded `:safe`."
  @spec start(map(), term(), Job.t(), pos_integer()) :: {pid(), reference()}
  def start(options, state, job, answer_bytes_max) do
    :erlang.spawn_opt(fn -> run(options, state, job, answer_bytes_max) end, [:link, :monitor])
  end

  @doc "The outcome of a job whose process ended without one."
  @spec died(term()) :: outcome()
  def died(reason), do: {:failed, @raised, cut("the job's process ended: #{inspect(reason)}")}

  @doc "The outcome of a job that was told to stop: one that was ended for it has not failed."
  @spec stopped(outcome()) :: outcome()
  def stopped({:failed, @raised, _message}), do: :cancelled
  def stopped(outcome), do: outcome

  defp run(options, state, job, answer_bytes_max) do
    # As proc_lib's processes have it, and hand it on: what a handler starts by a Task, or as a server, is known for the loop's.
    Process.put(:"$ancestors", [job.loop])
    began = System.monotonic_time()
    outcome = bounded(handle(options, state, job), answer_bytes_max)
    run_us = System.convert_time_unit(System.monotonic_time() - began, :native, :microsecond)
    send(job.server, {job.ref, :done, outcome, run_us})
  end

  defp handle(options, state, job) do
    job = %{job | payload: Job.decode(job.payload, options.safe)}

    case options.module.handle_job(job, state) do
      {:ok, value} ->
        {:ok, Job.encode(value)}

      {:error, code, message} when code in 0..65_535 and is_binary(message) ->
        {:failed, code, cut(message)}

      :cancelled ->
        :cancelled

      other ->
        why = "handle_job/2 gives {:ok, value}, {:error, code, text} or :cancelled, not "
        {:failed, @no_answer, cut(why <> inspect(other, limit: 20))}
    end
  catch
    kind, reason ->
      said = Exception.format(kind, reason, __STACKTRACE__)
      Logger.error("job #{job.id} of #{inspect(options.module)} failed: " <> said)
      {:failed, @raised, cut(Exception.format_banner(kind, reason))}
  end

  defp bounded({:ok, payload} = outcome, most) do
    case Job.size(payload) do
      size when size > most ->
        {:failed, @too_large, "an answer of #{size} bytes; #{most} may be"}

      _ ->
        outcome
    end
  end

  defp bounded(outcome, _most), do: outcome

  # A text stays valid UTF-8 when it is cut.
  defp cut(text) when byte_size(text) <= @message_bytes_max, do: text

  defp cut(text) do
    case :unicode.characters_to_binary(binary_part(text, 0, @message_bytes_max)) do
      whole when is_binary(whole) -> whole
      {_incomplete_or_error, valid, _rest} -> valid
    end
  end
end
