defmodule Ringbridge.SchemaGuard do
  @moduledoc """
  Holds a job's declaration (`Ringbridge.Job`) against what the bridge says that its role takes, before a job is sent.

  The bridge tells three things of a role (`{:lookup, role}` of its WorkerRegistry): the operations of its settings (`[roles.x.ops.y]`,
  docs/ops.md), those that its workers have declared in their hello, and the layout that it goes by. A job is refused, as
  `{:schema_mismatch, why}` or `{:layout_mismatch, why}`, when

    * the role has operations, and none of the job's number and name
    * both sides give the operation a version, and it is not the same
    * the job allows what the operation does not take: it may be narrower, never wider
    * a worker has declared operations, and not this one, or not in this form (raw bytes or terms)
    * the bridge's layout is of another major (`Ringbridge.LayoutLoader`)

  A role that says nothing of operations takes every job; so does a bridge that cannot be asked, or is older than this: it has the last
  word anyway, and refuses what is wrong itself (`:bad_request`).

  The first job of a module over a connection asks, in its caller, for a second at most. The bridge tells nobody that its settings were read again, so
  the verdict is asked for anew after five seconds, by a process beside the job that finds it so old, which goes by it; one that is a minute old is no verdict. So
  while jobs come a reload is noticed within some five seconds, and after a pause by the second job. A refusal is kept for two seconds, so that a reload mends
  it, and what the bridge refused by itself is looked at anew. `check/2` asks at once, for a release that wants to know when it starts:

      :ok = Ringbridge.SchemaGuard.check!(MyApp.Compute, [MyApp.Terrain, MyApp.Route])
  """
  alias Ringbridge.{Error, Instance, Job, LayoutLoader, Request}
  alias Ringbridge.Job.Violation
  alias Ringbridge.Lane.Dist
  alias Ringbridge.SchemaGuard.Schema

  # A registry answers in a millisecond. A bridge whose interpreter stands still has jobs go on, and so do we.
  @ask_ms 1_000
  # A role's settings may be read again, and its workers replaced, while the connection stays: so old a verdict is asked for anew, beside
  # the job that goes by it; and past the second in front of it.
  @fresh_ms 5_000
  @stale_ms 60_000
  @refused_ms 2_000

  @type reason :: {:schema_mismatch, String.t()} | {:layout_mismatch, String.t()}

  @doc """
  Whether the bridges of an instance take these jobs; the first thing that differs. Waits for a connection as a call does.

  `{:error, %Ringbridge.Error{reason: :not_connected}}` and the like where no bridge could be asked.
  """
  @spec check(Ringbridge.name(), [module()]) :: :ok | {:error, Error.t()}
  def check(name, modules) do
    with {:ok, instance} <- Instance.fetch(name) do
      Enum.find_value(modules, :ok, fn module ->
        with :ok <- ask_for(instance, module!(module)), do: nil
      end)
    end
  end

  @doc "The same, raising `Ringbridge.Error`."
  @spec check!(Ringbridge.name(), [module()]) :: :ok
  def check!(name, modules), do: with({:error, error} <- check(name, modules), do: raise(error))

  defp module!(module) do
    Job.of(module) || raise ArgumentError, "#{inspect(module)} is no job: `use Ringbridge.Job`"
  end

  defp ask_for(%{mode: :inline}, _job), do: :ok

  defp ask_for(instance, job) do
    until_ms = Ringbridge.Deadline.from_now(instance.connect_timeout)

    with {:ok, _lane, _to, {node, epoch}} <- Instance.target(instance, job.role, [], until_ms),
         {:ok, verdict, ms} <- ask(node, job),
         :ok <- put(instance, node, job.module, epoch, verdict, ms) do
      :ok
    else
      {:error, %Error{} = error} ->
        {:error, error}

      {:error, reason} ->
        {:error, %Error{reason: reason, role: job.role}}

      {reason, _why} = mismatch when is_atom(reason) ->
        {:error, %Error{reason: mismatch, role: job.role}}
    end
  end

  # --- Before a job --------------------------------------------------------------------------------------------

  @doc false
  @spec admit(Request.t()) :: :ok | {:error, reason()}
  def admit(%{jobs: []}), do: :ok
  def admit(%{node: nil}), do: :ok

  def admit(request) do
    Enum.find_value(request.jobs, :ok, fn module ->
      with :ok <- admit(request, module), do: nil
    end)
  end

  defp admit(request, module) do
    verdict =
      case kept(request, module) do
        {:ok, verdict} -> verdict
        :none -> find_out(request, module)
      end

    if verdict == :ok, do: :ok, else: {:error, verdict}
  end

  defp find_out(%{instance: instance, node: node, epoch: epoch}, module),
    do: find_out(instance, node, epoch, module)

  defp find_out(instance, node, epoch, module) do
    case ask(node, module.__job__()) do
      {:ok, verdict, ms} -> put(instance, node, module, epoch, verdict, ms)
      # Who cannot be asked is believed for a while: else each call would wait for the answer anew.
      {:error, _unsure} -> put(instance, node, module, epoch, :ok, @fresh_ms)
    end
  end

  # Linked to nobody, and given no more than it needs: the request has the payload.
  defp renew(%{instance: instance, node: node, epoch: epoch}, module),
    do: spawn(fn -> find_out(instance, node, epoch, module) end)

  @doc false
  # The bridge has refused by itself what passed here: its settings may have changed.
  @spec refused(Request.t(), Error.reason()) :: :ok
  def refused(%{jobs: [_ | _], node: node} = request, {:bad_request, _why}) when node != nil do
    Enum.each(request.jobs, &:ets.delete(request.instance.name, {:schema, node, &1}))
  rescue
    ArgumentError -> :ok
  end

  def refused(_request, _reason), do: :ok

  defp kept(request, module) do
    now_ms = System.monotonic_time(:millisecond)

    case :ets.lookup(request.instance.name, {:schema, request.node, module}) do
      [{_key, epoch, verdict, until_ms}] when epoch == request.epoch and now_ms < until_ms ->
        {:ok, verdict}

      # One caller has it looked at again, all go by what was found until that is known.
      [{_key, epoch, :ok, until_ms}] when epoch == request.epoch ->
        put(request.instance, request.node, module, epoch, :ok, @ask_ms)

        if now_ms < until_ms + @stale_ms - @fresh_ms do
          renew(request, module)
          {:ok, :ok}
        else
          :none
        end

      _ ->
        :none
    end
  rescue
    # The table went between two looks.
    ArgumentError -> :none
  end

  defp put(instance, node, module, epoch, verdict, ms) do
    until_ms = System.monotonic_time(:millisecond) + ms
    :ets.insert(instance.name, {{:schema, node, module}, epoch, verdict, until_ms})
    verdict
  rescue
    ArgumentError -> verdict
  end

  defp ask(node, job) do
    case Dist.ask({Ringbridge.WorkerRegistry, node}, {:lookup, job.role}, @ask_ms) do
      {:answer, {:ok, %{} = role}} ->
        judged(node, compare(job, role))

      # That there is no such role is said by the bridge better than by us.
      {:answer, {:error, reason}} ->
        {:error, %Error{reason: reason, role: job.role, node: node}}

      {:down, reason} ->
        {:error, %Error{reason: {:down, reason}, role: job.role, node: node}}

      _timeout ->
        {:error, %Error{reason: :timeout, role: job.role, node: node}}
    end
  end

  defp judged(_node, :ok), do: {:ok, :ok, @fresh_ms}
  defp judged(node, {kind, why}), do: {:ok, {kind, "#{node}: #{why}"}, @refused_ms}

  # --- Comparing -----------------------------------------------------------------------------------------------

  @doc """
  Holds a job against what a bridge has told of its role: `:ok`, or the reason to refuse it.

      iex> table = %{operations: [%{opcode: 0, name: "repeat", version: nil, payload: %{"map" => %{"text" => "binary"}}}]}
      iex> Ringbridge.SchemaGuard.compare(MyApp.Repeat.__job__(), table)
      {:schema_mismatch,
       "MyApp.Repeat.times is an integer of 1 to 9, but operation repeat of role echo has it unknown; " <>
         "make them agree: the fields of MyApp.Repeat, or payload of [roles.echo.ops.repeat]"}
  """
  @spec compare(Job.t(), map()) :: :ok | reason()
  def compare(job, role) do
    with :ok <- layout(Map.get(role, :layout)),
         :ok <- declared(job, Map.get(role, :operations, [])),
         do: workers(job, Map.get(role, :workers, []))
  end

  # A bridge that is older than this says nothing of it.
  defp layout(nil), do: :ok

  defp layout(theirs) do
    case LayoutLoader.compare(theirs) do
      {:ok, _kin} -> :ok
      {:error, why} -> {:layout_mismatch, why}
    end
  end

  defp declared(_job, []), do: :ok

  defp declared(job, operations) do
    case Enum.find(operations, &same?(job, &1)) do
      nil ->
        lacks(job, operations, "role #{job.role}", "declare it in [roles.#{job.role}.ops]")

      operation ->
        with :ok <- named(job, operation),
             :ok <- version(job, operation),
             do: payload(job, operation)
    end
  end

  # By its number; by its name, where that is all that a job says.
  defp same?(%{opcode: nil, op: op}, operation), do: operation.name == "#{op}"
  defp same?(%{opcode: opcode}, operation), do: operation.opcode == opcode

  defp lacks(job, operations, who, mend) do
    known = Enum.map_join(operations, ", ", &"#{&1.name} (#{&1.opcode})")
    asked = if job.opcode, do: "opcode #{job.opcode}", else: "name #{job.op}"

    {:schema_mismatch,
     "#{who} has no operation of #{asked}, which #{inspect(job.module)} asks for; it has #{known}; #{mend}, " <>
       "or mend opcode: and op: of the module"}
  end

  defp named(%{op: op} = job, operation) do
    if op == nil or operation.name == "#{op}" do
      :ok
    else
      {:schema_mismatch,
       "opcode #{operation.opcode} of role #{job.role} is #{operation.name}, and #{op} for #{inspect(job.module)}"}
    end
  end

  defp version(job, operation) do
    theirs = Map.get(operation, :version)

    if job.version == nil or theirs == nil or job.version == theirs do
      :ok
    else
      {:schema_mismatch,
       "#{inspect(job.module)} is of version #{job.version}, operation #{operation.name} of role #{job.role} of #{theirs}; " <>
         "deploy the module and the role of one version"}
    end
  end

  defp payload(job, operation) do
    with {:ok, theirs} <- Schema.parse(operation.payload),
         {:error, path, ours, theirs} <- Schema.within(Schema.of(job.module), theirs) do
      place = path |> Enum.map(&if(&1 == :each, do: "each", else: &1)) |> Violation.place()

      {:schema_mismatch,
       "#{inspect(job.module)}#{place} is #{ours}, but operation #{operation.name} of role #{job.role} has it #{theirs}; " <>
         "make them agree: the fields of #{inspect(job.module)}, or payload of [roles.#{job.role}.ops.#{operation.name}]"}
    else
      # A kind of schema that is newer than this client: the bridge judges.
      _ -> :ok
    end
  end

  defp workers(job, workers) do
    Enum.find_value(workers, :ok, fn worker ->
      with :ok <- worker(job, worker, Map.get(worker, :operations, [])), do: nil
    end)
  end

  # Before its hello, or one that takes every opcode.
  defp worker(_job, _worker, []), do: :ok

  defp worker(job, worker, operations) do
    who = "worker #{worker.id} of role #{job.role}"

    case Enum.find(operations, &same?(job, &1)) do
      nil ->
        lacks(job, operations, who, "start a worker that serves it")

      operation ->
        with :ok <- named(job, operation), do: takes(job, operation, who)
    end
  end

  defp takes(job, operation, who) do
    form = form(Schema.of(job.module))
    forms = for form <- operation.takes, form in [:raw, :term], do: form

    if form == nil or forms == [] or form in forms do
      :ok
    else
      {:schema_mismatch,
       "#{who} takes #{operation.name} as #{hd(forms)}, and #{inspect(job.module)} sends it as #{form}; " <>
         "a :packed payload, or a :value that is a binary, is raw, all others are terms"}
    end
  end

  # A value that may be a binary or not is one or the other when it is there.
  defp form(:any), do: nil
  defp form({:one_of, types}), do: if(Enum.all?(types, &(form(&1) == :term)), do: :term)
  defp form({:binary, _size}), do: :raw
  defp form(_term), do: :term

  # --- For ringbridge.toml -------------------------------------------------------------------------------------

  @doc """
  The tables for a bridge's settings that say of these jobs what their modules do, so that it refuses the same by itself.

      iex> Ringbridge.SchemaGuard.toml([MyApp.Repeat])
      \"\"\"
      [roles.echo.ops.repeat]
      opcode = 0
      payload = { map = { "text" = { binary = [1, 64] }, "times" = { integer = [1, 9] } } }
      \"\"\"
  """
  @spec toml([module()]) :: String.t()
  def toml(modules), do: Enum.map_join(modules, "\n", &table(module!(&1)))

  defp table(job) do
    name = job.op || job.module |> Module.split() |> List.last() |> Macro.underscore()
    version = if job.version, do: "version = #{job.version}\n", else: ""

    "[roles.#{job.role}.ops.#{name}]\nopcode = #{job.opcode || 0}\n" <>
      version <> "payload = #{Schema.toml(Schema.of(job.module))}\n"
  end
end
