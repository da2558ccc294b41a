defmodule Ringbridge.JobDispatcher do
  @moduledoc """
  Makes requests of jobs that are structs (`Ringbridge.Job`): the caller's end of the bridge's service of this name.

  A struct is checked and written before anything is sent; what breaks its declaration is `{:invalid_job, violations}`
  (`Ringbridge.Job.Violation`), and nothing was sent. The functions of `Ringbridge` call these; nobody else has to.
  """
  alias Ringbridge.{Error, Job, Request}
  alias Ringbridge.Job.Record

  @doc "A request of one job, begun; one that is answered already if the job breaks its declaration."
  @spec new(atom(), Request.verb(), struct(), term()) :: Request.t()
  def new(name, verb, job, options), do: made(name, verb, job, options, &Request.new/6)

  defp made(name, verb, %module{} = struct, options, make) do
    with {:ok, job} <- job(module),
         :ok <- options?(job, options),
         {:ok, payload} <- write(struct) do
      more = [jobs: [module], ingest: {:result, module}]
      make.(name, verb, job.role, payload, addressed(job, options), more)
    else
      {:error, reason} -> make.(name, verb, role(module), nil, options, refused(module, reason))
    end
  end

  defp refused(module, reason),
    do: [answer: {:error, %Error{reason: reason, role: role(module)}}]

  defp role(module), do: with(%{role: role} <- Job.of(module), do: role)

  @doc """
  Many jobs of one module as one message. Those that break their declaration are answered here, the others by the bridge.
  """
  @spec call_many(atom(), [struct()], term()) ::
          {:ok, [Ringbridge.answer()]} | {:error, Error.t()}
  def call_many(name, jobs, options) do
    with {:ok, module} <- one_module(jobs),
         {:ok, job} <- job(module),
         :ok <- options?(job, options) do
      written = Enum.map(jobs, &write/1)
      payloads = for {:ok, payload} <- written, do: payload
      first = Enum.find(written, &match?({:error, _}, &1))
      more = [jobs: [module], ingest: {:result, module}]

      # As the bridge does: the whole is an error only when none was accepted.
      more = if payloads == [] and first, do: refused(module, elem(first, 1)), else: more

      name
      |> Request.new(:submit_many, job.role, payloads, addressed(job, options), more)
      |> Request.run()
      |> in_their_places(written, job.role)
    else
      {:error, reason} ->
        more = [answer: {:error, %Error{reason: reason}}]
        name |> Request.new(:submit_many, nil, [], options, more) |> Request.run()
    end
  end

  defp in_their_places({:ok, answers}, written, role) do
    {placed, []} =
      Enum.map_reduce(written, answers, fn
        {:ok, _payload}, [answer | rest] -> {answer, rest}
        {:error, reason}, rest -> {{:error, %Error{reason: reason, role: role}}, rest}
      end)

    {:ok, placed}
  end

  defp in_their_places({:error, error}, _written, _role), do: {:error, error}

  defp one_module(jobs) do
    if is_list(jobs) and not List.improper?(jobs) do
      case Enum.uniq_by(jobs, &module_of/1) do
        [%module{}] -> {:ok, module}
        _ -> bad("the jobs of call_many are structs of one module")
      end
    else
      bad("the jobs of call_many are a proper list")
    end
  end

  defp module_of(%module{}), do: module
  defp module_of(_other), do: nil

  @doc """
  The stages of a pipeline with jobs among them: their modules become roles with opcodes, the payload of the first one is
  written. What the last one answers is its result.
  """
  @spec pipeline([term(), ...], term()) ::
          {:ok, [Ringbridge.stage(), ...], Ringbridge.payload(), keyword()}
          | {:error, Error.reason()}
  def pipeline(stages, payload) do
    # What is no list is the bridge's to refuse.
    if List.improper?(stages), do: {:ok, stages, payload, []}, else: staged(stages, payload)
  end

  defp staged(stages, payload) do
    with {:ok, payload} <- first_payload(hd(stages), payload),
         {:ok, plain} <- plain(stages) do
      ingest = stages |> List.last() |> ingest()
      {:ok, plain, payload, [jobs: modules(stages), ingest: ingest]}
    end
  end

  defp first_payload({:map, stage}, payloads) when is_list(payloads) do
    if Job.of(stage) == nil or List.improper?(payloads) do
      {:ok, payloads}
    else
      each(payloads, &first_payload(stage, &1))
    end
  end

  defp first_payload(stage, %module{} = struct) when is_atom(stage) do
    case {Job.of(stage), Job.of(module)} do
      {nil, nil} -> {:ok, struct}
      {_, _} when stage == module -> write(struct)
      _ -> bad("the first stage is #{inspect(stage)}, its payload a %#{inspect(module)}{}")
    end
  end

  defp first_payload(stage, payload) do
    if Job.of(stage) == nil,
      do: {:ok, payload},
      else: bad("the payload of #{inspect(stage)} is a struct of it")
  end

  defp plain(stages) do
    if List.improper?(stages), do: {:ok, stages}, else: each(stages, &stage/1)
  end

  defp stage({:map, stage} = map) do
    case Job.of(stage) do
      nil -> {:ok, map}
      job -> with {:ok, stage} <- numbered(job), do: {:ok, {:map, stage}}
    end
  end

  defp stage([_ | _] = several), do: plain(several)

  defp stage(stage) do
    case Job.of(stage) do
      nil -> {:ok, stage}
      job -> numbered(job)
    end
  end

  defp numbered(%{opcode: nil} = job),
    do: bad("a stage goes by its number: give #{inspect(job.module)} an opcode: beside its op:")

  defp numbered(%{opcode: 0, role: role}), do: {:ok, role}
  defp numbered(%{opcode: opcode, role: role}), do: {:ok, {role, opcode}}

  defp ingest({:map, stage}), do: with(plan when plan != nil <- ingest(stage), do: {:each, plan})

  defp ingest([_ | _] = several) do
    if List.improper?(several), do: nil, else: {:fan_out, Enum.map(several, &ingest/1)}
  end

  defp ingest(stage), do: if(Job.of(stage), do: {:result, stage})

  defp modules(stages) do
    stages
    |> Enum.flat_map(fn
      {:map, stage} -> [stage]
      [_ | _] = several -> several
      stage -> [stage]
    end)
    |> Enum.filter(&Job.of/1)
    |> Enum.uniq()
  end

  # --- One job -------------------------------------------------------------------------------------------------

  defp job(module) do
    case Job.of(module) do
      nil -> bad("%#{inspect(module)}{} is no job; its module lacks `use Ringbridge.Job`")
      job -> {:ok, job}
    end
  end

  defp write(%_{} = struct) do
    with {:error, violations} <- Record.write(struct), do: {:error, {:invalid_job, violations}}
  end

  # What the job says itself; and frames of zstd, which nobody here could look into.
  defp options?(job, options) when is_map(options), do: options?(job, Map.to_list(options))

  defp options?(job, options) do
    if Keyword.keyword?(options) do
      cond do
        Keyword.has_key?(options, :opcode) or Keyword.has_key?(options, :op) ->
          bad("opcode and op are said by #{inspect(job.module)}; leave them out of the options")

        options[:encoding] == :zstd or options[:accept] == :zstd ->
          bad("a job that is a struct travels plain: no encoding or accept of :zstd")

        Keyword.has_key?(options, :stages) ->
          bad("stages: is for roles; give Ringbridge.pipeline/4 the modules")

        true ->
          :ok
      end
    else
      :ok
    end
  end

  defp addressed(job, options) do
    case {job, options} do
      {%{opcode: 0}, options} -> options
      {%{opcode: nil, op: op}, options} -> with_option(options, :op, op)
      {%{opcode: opcode}, options} -> with_option(options, :opcode, opcode)
    end
  end

  defp with_option(options, key, value) when is_map(options), do: Map.put(options, key, value)

  # What cannot be options stays as it is, and is said to be none by the call.
  defp with_option(options, key, value),
    do: if(Keyword.keyword?(options), do: [{key, value} | options], else: options)

  defp each(list, run) do
    Enum.reduce_while(list, {:ok, []}, fn element, {:ok, done} ->
      case run.(element) do
        {:ok, value} -> {:cont, {:ok, [value | done]}}
        error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defp bad(why), do: {:error, {:bad_request, why}}
end
