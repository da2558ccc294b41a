defmodule Ringbridge.Test do
  @moduledoc """
  An instance for tests, whose roles each test says for itself, also where tests run at the same time.

  Start it once, in `test_helper.exs`, in the place of the real one:

      {:ok, _pid} = Ringbridge.Test.start_link(name: MyApp.Compute)

  Then a test says what a role does, and sees what was asked for:

      test "a picture is scaled" do
        Ringbridge.Test.stub(MyApp.Compute, :scale, fn image -> {:ok, "small " <> image} end)
        assert MyApp.thumbnail("cat") == "small cat"
        assert_received {Ringbridge.Test, :scale, "cat", _options}
      end

  A job that is a struct (`Ringbridge.Job`) has its module in the place of the role. The stub is given the struct, and gives the struct of
  the result, or an Enumerable of parts; both are held against what the module declares, as a worker's would be:

      Ringbridge.Test.stub(MyApp.Compute, MyApp.Terrain, fn job ->
        {:ok, %MyApp.Terrain.Result{heights: List.duplicate(0.0, job.width * job.height)}}
      end)

  A stub is that of the process that said it, and of those that it started: by `Task` (`$callers`) or as a GenServer or the
  like (`$ancestors`). Another process is let in by `allow/3`. A job that nobody has a stub for is
  `{:error, %Ringbridge.Error{reason: {:bad_request, why}}}`. There is no bridge, no clock and no deadline: `Ringbridge.Lane.Inline`.

      iex> {:ok, _pid} = Ringbridge.Test.start_link(name: DocTest)
      iex> Ringbridge.Test.stub(DocTest, :half, &{:ok, div(&1, 2)})
      :ok
      iex> Ringbridge.call(DocTest, :half, 84)
      {:ok, 42}
      iex> Task.await(Task.async(fn -> Ringbridge.call(DocTest, :half, 10) end))
      {:ok, 5}
  """

  alias Ringbridge.Job
  alias Ringbridge.Job.Fake

  @typedoc "What a role does: a function of the payload, or of the payload and the options."
  @type stub ::
          (Ringbridge.payload() -> {:ok, term()} | {:error, Ringbridge.Error.reason()})
          | (Ringbridge.payload(), keyword() ->
               {:ok, term()} | {:error, Ringbridge.Error.reason()})

  @doc "For a supervision tree; the only option is `:name`."
  @spec child_spec(name: atom()) :: Supervisor.child_spec()
  def child_spec(options), do: options |> inline() |> Ringbridge.child_spec()

  @doc "Starts it, linked to the caller; the only option is `:name`."
  @spec start_link(name: atom()) :: Supervisor.on_start()
  def start_link(options), do: options |> inline() |> Ringbridge.start_link()

  defp inline(options) do
    name = Keyword.fetch!(options, :name)
    Keyword.merge(options, mode: :inline, roles: &__MODULE__.run(name, &1, &2, &3))
  end

  @doc "Says what a role, or a job's module, does for this process and those that it starts, until it ends or says otherwise."
  @spec stub(Ringbridge.name(), Ringbridge.role() | module(), stub()) :: :ok
  def stub(name, role, fun) when is_function(fun, 1) or is_function(fun, 2) do
    forget_the_dead(name)

    case Job.of(role) do
      nil -> :ets.insert(name, {{:stub, self(), role}, fun})
      job -> :ets.insert(name, {{:stub, self(), Fake.address(job)}, {job, fun}})
    end

    :ok
  end

  @doc "Lets another process use the stubs of `owner`: one that stood before the test, say."
  @spec allow(Ringbridge.name(), owner :: pid(), pid()) :: :ok
  def allow(name, owner, pid) when is_pid(owner) and is_pid(pid) do
    :ets.insert(name, {{:allowed, pid}, owner})
    :ok
  end

  @doc false
  @spec run(atom(), term(), term(), keyword()) :: {:ok, term()} | {:error, term()}
  def run(name, role, payload, options) do
    # A job's own stub goes before its role's.
    roles = [Fake.address(role, options), role]

    case Enum.find_value(family(), fn pid -> Enum.find_value(roles, &stub_of(name, pid, &1)) end) do
      nil ->
        why =
          "#{inspect(self())} has no stub for #{inspect(role)}: Ringbridge.Test.stub/3, or allow/3"

        {:error, {:bad_request, why}}

      {owner, {job, fun}} ->
        Fake.run(job, fun, payload, options, &send(owner, {__MODULE__, job.module, &1, options}))

      {owner, fun} ->
        send(owner, {__MODULE__, role, payload, options})
        if is_function(fun, 1), do: fun.(payload), else: fun.(payload, options)
    end
  end

  # Whoever may have said the stub, the nearest first.
  defp family do
    [self() | Process.get(:"$callers", [])]
    |> Enum.concat(Process.get(:"$ancestors", []))
    |> Enum.map(&if(is_atom(&1), do: Process.whereis(&1), else: &1))
  end

  defp stub_of(name, pid, role) do
    owner =
      with [{_key, owner}] <- :ets.lookup(name, {:allowed, pid}), do: owner, else: (_ -> pid)

    with [{_key, fun}] <- :ets.lookup(name, {:stub, owner, role}),
         do: {owner, fun},
         else: (_ -> nil)
  end

  # No process watches the owners: a test run ends, and until then the next stub sweeps up.
  defp forget_the_dead(name) do
    owners = for [owner] <- :ets.match(name, {{:stub, :"$1", :_}, :_}), uniq: true, do: owner

    Enum.each(Enum.reject(owners, &Process.alive?/1), fn owner ->
      :ets.match_delete(name, {{:stub, owner, :_}, :_})
      :ets.match_delete(name, {{:allowed, :_}, owner})
    end)
  end
end
