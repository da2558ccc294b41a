defmodule Ringbridge.Job.Fake do
  @moduledoc false
  # A function in the place of a job's worker: given the struct, and held to what the module declares, as a worker is.

  alias Ringbridge.Job
  alias Ringbridge.Job.Record

  @doc "What a job is found by, beside its role."
  @spec address(Job.t()) :: {term(), term()}
  def address(%Job{opcode: nil} = job), do: {job.role, job.op}
  def address(%Job{} = job), do: {job.role, job.opcode}

  @spec address(term(), keyword()) :: {term(), term()}
  def address(role, options), do: {role, options[:op] || options[:opcode] || 0}

  @doc "The roles of an instance with the modules of jobs among them as functions of their roles."
  @spec roles(term()) :: term()
  def roles(%{} = roles) do
    {jobs, plain} = Enum.split_with(roles, fn {role, _run} -> Job.of(role) != nil end)
    plain = Map.new(plain)

    jobs
    |> Enum.map(fn {module, run} -> {module.__job__(), run} end)
    |> Enum.group_by(fn {job, _run} -> job.role end)
    |> Enum.reduce(plain, fn {role, jobs}, roles ->
      jobs = Map.new(jobs, fn {job, run} -> {address(job), {job, run}} end)
      Map.put(roles, role, &role(role, jobs, plain[role], &1, &2))
    end)
  end

  def roles(other), do: other

  defp role(role, jobs, plain, payload, options) do
    case {jobs[address(role, options)], plain} do
      {{job, run}, _} ->
        run(job, run, payload, options)

      {nil, nil} ->
        known = Enum.map_join(jobs, ", ", fn {_, {job, _run}} -> inspect(job.module) end)
        {:error, {:bad_request, "of role #{role} there are only #{known}"}}

      {nil, plain} when is_function(plain, 1) ->
        plain.(payload)

      {nil, plain} ->
        plain.(payload, options)
    end
  end

  @doc "Runs it; raises where the result is not the declared one, which the lane makes the job's failure of."
  @spec run(Job.t(), function(), term(), keyword(), (struct() -> term())) ::
          {:ok, term()} | {:error, term()}
  def run(job, fun, payload, options, told \\ fn _struct -> :ok end) do
    struct = payload |> read!(job)
    told.(struct)
    answer = if is_function(fun, 1), do: fun.(struct), else: fun.(struct, options)
    with {:ok, result} <- answer, do: {:ok, written!(job, result)}
  end

  defp read!(payload, job), do: job.module |> Job.read(payload) |> fits!()

  # What is no declared result, of a job that answers in parts, are its parts.
  defp written!(%{part: part, result: declared} = job, result)
       when part == nil or (declared != nil and is_struct(result, declared)),
       do: job.module |> Job.write_result(result) |> fits!()

  defp written!(%{part: part}, parts), do: Stream.map(parts, &part!(part, &1))

  defp part!(part, value) when is_struct(value, part), do: value |> Record.write() |> fits!()

  defp part!(part, value),
    do: raise(ArgumentError, "a part is a %#{inspect(part)}{}, got: #{inspect(value)}")

  defp fits!({:ok, value}), do: value
  defp fits!({:error, found}), do: raise(ArgumentError, Enum.map_join(found, "; ", &to_string/1))
end
