defmodule Ringbridge do
  @moduledoc """
  Calls native workers through a bridge, a hidden node of the cluster.

  A call needs nothing of this library: every request is a plain `GenServer.call/3` to a name on the
  bridge's node.

      GenServer.call({Ringbridge.JobDispatcher, :"bridge@127.0.0.1"}, {:submit, :echo, "hello"})
      #=> {:ok, "hello"}

  What stands here is for those who stay: an instance in your supervision tree, which connects, watches, finds the
  nearest of several bridges and goes to another one when it is lost; calls that never exit; streams; telemetry.

      children = [
        {Ringbridge, name: MyApp.Compute, nodes: [:"bridge@127.0.0.1"]}
      ]

      {:ok, "hello"} = Ringbridge.call(MyApp.Compute, :echo, "hello")

  The examples on this page run without a bridge, by an instance whose roles are functions (`mode: :inline`):

      iex> {:ok, _pid} = Ringbridge.start_link(name: Doc, mode: :inline, roles: %{echo: &{:ok, &1}})
      iex> Ringbridge.call(Doc, :echo, "hello")
      {:ok, "hello"}

  A caller that gives up or dies takes its job along: queued work is dropped, running work is told to stop
  (docs/cancel.md). Nothing here links to a caller, exits it, or leaves a message in its mailbox. The guide is docs/elixir.md.
  """

  @behaviour Ringbridge.Client

  alias Ringbridge.{Client, Cookie, Error, Instance, JobDispatcher, Options, Parts, Request}

  @typedoc "An instance: the `:name` of its child spec."
  @type name :: atom()

  @typedoc "What kind of work is asked for; the bridge's configuration names its roles."
  @type role :: atom() | binary()

  @typedoc """
  The work itself. A binary crosses as raw bytes; any other term as its external term bytes, which the worker's
  kit decodes. Pids, ports, references and funs may only be answered by a worker if the request carried them.
  """
  @type payload :: binary() | term()

  @typedoc """
  Options of one job. Two are the client's:

    * `:timeout` - milliseconds for the whole, the wait for a connection and another bridge's turn included;
      `:infinity` for the role's most, `:role` for the role's default. The instance's `:timeout` when not given; of a cast
      and of a stream `:role`. At most 4_294_967_295 (49 days), as all waiting in Erlang
    * `:idempotent` - `true` if the job may run twice: it is then sent again when its bridge is lost. Default `false`

  All others go to the bridge as they are, with the meaning of docs/calling.md: `:opcode`, `:op`, `:priority`, `:key`,
  `:tenant`, `:retry`, `:dedupe`, `:ttl`, `:orphan`, `:detail`, `:meta`, `:trace`, `:encoding`, `:accept`, `:stages`.
  """
  @type option ::
          {:timeout, timeout() | :role}
          | {:idempotent, boolean()}
          | {:opcode, 0..65_535}
          | {:op, atom() | binary()}
          | {:priority, :critical | :high | :normal | :low}
          | {:key, binary() | atom() | integer()}
          | {:tenant, binary() | atom()}
          | {:retry, 0..100}
          | {:dedupe, binary() | atom() | integer()}
          | {:ttl, non_neg_integer()}
          | {:orphan, :cancel | :finish}
          | {:detail, boolean()}
          | {:meta, map()}
          | {:trace, binary() | nil}
          | {:encoding, :zstd | :identity}
          | {:accept, :zstd | :identity}
          | {:stages, [stage()]}
  @type options :: [option()] | map()

  @typedoc "A job as a struct, of a module with `use Ringbridge.Job`: it knows its role, and is checked before it is sent."
  @type job :: struct()

  @typedoc """
  A step of a job in stages: a role, or a role and which of its operations; a fan-out, several of them side by side; or a
  map, one for each element of a list (docs/calling.md, "Over several at once"). A module with `use Ringbridge.Job` stands for its role
  and opcode.
  """
  @type stage ::
          role()
          | {role(), opcode :: 0..65_535}
          | [role() | {role(), opcode :: 0..65_535}, ...]
          | {:map, role() | {role(), opcode :: 0..65_535}}

  @typedoc """
  A raw answer is a binary; a term answer is whatever the worker's kit encoded. With `accept: :zstd` it is
  `{:zstd, frame}` or `{:identity, result}`.
  """
  @type result :: binary() | term()

  @typedoc "Where a job ran and for how long; given with `detail: true`."
  @type detail :: %{
          job: term(),
          worker: term(),
          queue_us: non_neg_integer(),
          run_us: non_neg_integer()
        }

  @type answer :: {:ok, result()} | {:ok, result(), detail()} | {:error, Error.t()}

  @doc """
  An instance for a supervision tree.

  #{Options.docs()}

  Several instances run side by side, also to bridges of other clusters. A VM that was started without a name becomes a
  hidden node that listens nowhere (`Ringbridge.LocalNode`).
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    # What is wrong is said by start_link/1, when the tree starts.
    options = Cookie.conceal(options)
    id = if Keyword.keyword?(options), do: {__MODULE__, options[:name]}, else: __MODULE__
    %{id: id, start: {__MODULE__, :start_link, [options]}, type: :supervisor}
  end

  @doc """
  Starts an instance, linked to the calling process, as a supervisor does. Returns before its bridges are connected.

  Raises `ArgumentError` for wrong options; `{:error, {:shutdown, why}}` when this VM cannot become a node.
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  defdelegate start_link(options), to: Instance

  @doc """
  Submits one job and waits for its answer. Never exits: a timeout or a lost bridge is an error like the others.

      iex> {:ok, _pid} = Ringbridge.start_link(name: DocCall, mode: :inline, roles: %{half: &{:ok, div(&1, 2)}})
      iex> Ringbridge.call(DocCall, :half, 84)
      {:ok, 42}
      iex> {:error, %Ringbridge.Error{reason: {:bad_request, _why}}} = Ringbridge.call(DocCall, :third, 84)
      iex> {:error, %Ringbridge.Error{reason: :not_started}} = Ringbridge.call(Nowhere, :half, 84)

  The timeout is the job's deadline at the bridge; the call itself waits a second longer, so that the bridge's
  `:deadline_exceeded` arrives before it becomes a `:timeout`.
  """
  @impl Client
  @spec call(name(), role(), payload(), options()) :: answer()
  def call(name, role, payload, options) do
    name |> Request.new(:submit, role, payload, options) |> Request.run()
  end

  @doc """
  The same of a job that is a struct (`Ringbridge.Job`): it is checked before it is sent, and its result comes as the struct that it
  declares. Of a role and a payload: `call/4` without options.

      iex> {:ok, _pid} = Ringbridge.Test.start_link(name: DocJob)
      iex> Ringbridge.Test.stub(DocJob, MyApp.Repeat, fn job ->
      ...>   {:ok, %MyApp.Repeat.Result{text: String.duplicate(job.text, job.times), times: job.times}}
      ...> end)
      iex> Ringbridge.call(DocJob, %MyApp.Repeat{text: "cat", times: 2})
      {:ok, %MyApp.Repeat.Result{text: "catcat", times: 2}}
      iex> {:error, error} = Ringbridge.call(DocJob, %MyApp.Repeat{text: "cat", times: 0}, timeout: 500)
      iex> Exception.message(error)
      "echo: MyApp.Repeat.times must be an integer of 1 to 9, got: 0"
  """
  @impl Client
  @spec call(name(), job(), options()) :: answer()
  @spec call(name(), role(), payload()) :: answer()
  def call(name, job_or_role, options_or_payload \\ [])

  def call(name, %_{} = job, options),
    do: name |> JobDispatcher.new(:submit, job, options) |> Request.run()

  def call(name, role, payload), do: call(name, role, payload, [])

  @doc """
  As `call/4`, but gives the result itself, or raises `Ringbridge.Error`. With `detail: true`: `{result, detail}`.

      iex> {:ok, _pid} = Ringbridge.start_link(name: DocCallBang, mode: :inline, roles: %{half: &{:ok, div(&1, 2)}})
      iex> Ringbridge.call!(DocCallBang, :half, 84)
      42
  """
  @impl Client
  @spec call!(name(), role(), payload(), options()) :: result() | {result(), detail()}
  def call!(name, role, payload, options), do: name |> call(role, payload, options) |> or_raise()

  @doc "The same of a job that is a struct; or `call!/4` without options."
  @impl Client
  @spec call!(name(), job(), options()) :: result() | {result(), detail()}
  @spec call!(name(), role(), payload()) :: result() | {result(), detail()}
  def call!(name, job_or_role, options_or_payload \\ []),
    do: name |> call(job_or_role, options_or_payload) |> or_raise()

  defp or_raise({:ok, result}), do: result
  defp or_raise({:ok, result, detail}), do: {result, detail}
  defp or_raise({:error, error}), do: raise(error)

  @doc """
  Submits a job for nobody: it runs to its end, also when its caller ends, and its answer goes nowhere. Its time is the role's
  default, not the instance's `:timeout`, unless the call gives one.

  `:ok` says that it was handed to the connection, not that it was accepted.
  """
  @impl Client
  @spec cast(name(), role(), payload(), options()) :: :ok | {:error, Error.t()}
  def cast(name, role, payload, options) do
    name |> Request.new(:cast, role, payload, options) |> Request.cast()
  end

  @doc "The same of a job that is a struct; or `cast/4` without options."
  @impl Client
  @spec cast(name(), job(), options()) :: :ok | {:error, Error.t()}
  @spec cast(name(), role(), payload()) :: :ok | {:error, Error.t()}
  def cast(name, job_or_role, options_or_payload \\ [])

  def cast(name, %_{} = job, options),
    do: name |> JobDispatcher.new(:cast, job, options) |> Request.cast()

  def cast(name, role, payload), do: cast(name, role, payload, [])

  @doc """
  Submits many jobs as one message: each is answered for itself, in the order of the payloads (docs/calling.md,
  "Many at once"), 10,000 at most. An error of the whole says that none was accepted.

      iex> {:ok, _pid} = Ringbridge.start_link(name: DocCallMany, mode: :inline, roles: %{half: &{:ok, div(&1, 2)}})
      iex> Ringbridge.call_many(DocCallMany, :half, [2, 4, 6])
      {:ok, [{:ok, 1}, {:ok, 2}, {:ok, 3}]}
  """
  @impl Client
  @spec call_many(name(), role(), [payload()], options()) ::
          {:ok, [answer()]} | {:error, Error.t()}
  def call_many(name, role, payloads, options) do
    name |> Request.new(:submit_many, role, payloads, options) |> Request.run()
  end

  @doc """
  The same of jobs that are structs of one module: those that break their declaration are answered so, in their places, and the others are sent.
  Of a role and payloads: `call_many/4` without options.
  """
  @impl Client
  @spec call_many(name(), [job()], options()) :: {:ok, [answer()]} | {:error, Error.t()}
  @spec call_many(name(), role(), [payload()]) :: {:ok, [answer()]} | {:error, Error.t()}
  def call_many(name, jobs_or_role, options_or_payloads \\ [])

  def call_many(name, [%_{} | _] = jobs, options),
    do: JobDispatcher.call_many(name, jobs, options)

  def call_many(name, role, payloads), do: call_many(name, role, payloads, [])

  @doc """
  Submits a payload to the first stage; what one stage answers is the next one's payload, without coming back in between
  (docs/calling.md, "In stages"). The stage that fails is named: `{:stage, n, role, reason}`, counted from 1. A stage may be
  several jobs, whose answers the next one is given as a list:
  `pipeline(name, [:split, {:map, :count}, [:sum, :longest], :report], text)`.

      iex> roles = %{half: &{:ok, div(&1, 2)}, text: &{:ok, to_string(&1)}}
      iex> {:ok, _pid} = Ringbridge.start_link(name: DocPipeline, mode: :inline, roles: roles)
      iex> Ringbridge.pipeline(DocPipeline, [:half, :half, :text], 84)
      {:ok, "21"}

  A stage may be a module with `use Ringbridge.Job`; the payload of a first one is its struct (of a map, a list of them). The result of
  a last one is as it declares; what lies between two stages stays as the workers give it.
  """
  @impl Client
  @spec pipeline(name(), [stage(), ...], payload(), options()) :: answer()
  def pipeline(name, stages, payload, options \\ [])

  def pipeline(name, [_ | _] = stages, payload, options) do
    case JobDispatcher.pipeline(stages, payload) do
      {:ok, [first | rest], payload, jobs} ->
        {role, more} =
          case first do
            {role, opcode} when is_integer(opcode) -> {role, [opcode: opcode]}
            role_or_step -> {role_or_step, []}
          end

        more = if rest == [], do: more, else: [{:stages, rest} | more]
        options = first_of(more, options)
        name |> Request.new(:submit, role, payload, options, jobs) |> Request.run()

      {:error, reason} ->
        refused_pipeline(name, payload, options, reason)
    end
  end

  def pipeline(name, other, payload, options) do
    why = "the stages of a pipeline are a list of 1 to 16; got: #{inspect(other)}"
    refused_pipeline(name, payload, options, {:bad_request, why})
  end

  defp refused_pipeline(name, payload, options, reason) do
    name
    |> Request.checked(:submit, nil, payload, options)
    |> Request.refused(%Error{reason: reason})
    |> Request.run()
  end

  # What cannot be options stays as it is, and is said to be none by the call.
  defp first_of(more, options) when is_map(options), do: more ++ Map.to_list(options)

  defp first_of(more, options),
    do: if(Keyword.keyword?(options), do: more ++ options, else: options)

  @doc """
  Submits a job and returns; its answer is fetched by `await/2`, `yield/2` or `check/2`, by this process only.

  Never fails itself: that there is no bridge is told when the answer is fetched. It waits only while no bridge is
  connected (`:connect_timeout`). The end of this process cancels the
  job; so does `shutdown/1`. An answer is fetched once. A request whose answer is never fetched leaves it in the mailbox, as
  a `Task` does.

      iex> {:ok, _pid} = Ringbridge.start_link(name: DocAsync, mode: :inline, roles: %{half: &{:ok, div(&1, 2)}})
      iex> request = Ringbridge.async(DocAsync, :half, 84)
      iex> Ringbridge.await(request)
      {:ok, 42}
  """
  @impl Client
  @spec async(name(), role(), payload(), options()) :: Request.t()
  def async(name, role, payload, options) do
    name |> Request.new(:submit, role, payload, options) |> Request.submit()
  end

  @doc "The same of a job that is a struct; or `async/4` without options."
  @impl Client
  @spec async(name(), job(), options()) :: Request.t()
  @spec async(name(), role(), payload()) :: Request.t()
  def async(name, job_or_role, options_or_payload \\ [])

  def async(name, %_{} = job, options),
    do: name |> JobDispatcher.new(:submit, job, options) |> Request.submit()

  def async(name, role, payload), do: async(name, role, payload, [])

  @doc """
  Waits for the answer, at most until the job's own timeout. A job without an answer by then is cancelled:
  `{:error, %Ringbridge.Error{reason: :timeout}}`.
  """
  @impl Client
  @spec await(Request.t(), timeout()) :: answer()
  def await(request, timeout \\ :infinity), do: request |> owned!() |> Request.await(timeout)

  @doc """
  Waits for the answer; `nil` when there is none by then. The job goes on and can be waited for again, also after a timeout
  that cannot be meant (`{:bad_request, why}`).
  """
  @impl Client
  @spec yield(Request.t(), timeout()) :: answer() | nil
  def yield(request, timeout \\ 5_000), do: request |> owned!() |> Request.yield(timeout)

  @doc "Cancels the job; its answer if that was there already, else `nil`."
  @impl Client
  @spec shutdown(Request.t()) :: answer() | nil
  def shutdown(request), do: request |> owned!() |> Request.shutdown()

  @doc """
  The answer, if that is what a message is, else `:other`: for a GenServer that does not wait.

      def handle_info(message, state) do
        case Ringbridge.check(state.request, message) do
          :other -> {:noreply, state}
          answer -> {:noreply, finished(state, answer)}
        end
      end
  """
  @impl Client
  @spec check(Request.t(), message :: term()) :: answer() | :other
  def check(request, message), do: request |> owned!() |> Request.check(message)

  @doc """
  Cancels a job: one of `async/4`, one of a plain `:submit_async` by its reference, or, with `:node`, any by the id that
  `detail: true` and `{:jobs, role}` show. Its caller gets `:cancelled`, but for a request of this process: that is shut down.
  """
  @spec cancel(Request.t() | reference()) :: :ok | {:error, Error.t()}
  def cancel(%Request{} = request) do
    _answer = shutdown(request)
    :ok
  end

  # A reference's node is the bridge that made it.
  def cancel(ref) when is_reference(ref), do: Request.cancel(node(ref), ref)

  @doc "As `cancel/1`, for a job that is known by its id and its bridge."
  @spec cancel(non_neg_integer(), node: node()) :: :ok | {:error, Error.t()}
  def cancel(job_id, node: node) when is_atom(node), do: Request.cancel(node, job_id)

  def cancel(_job_id, other) do
    why = "cancel/2 takes a job's id and node: its bridge; got: #{inspect(other)}"
    {:error, %Error{reason: {:bad_request, why}}}
  end

  @doc """
  The job's parts, as they come, asked for as far as they are consumed (docs/streams.md). Each enumeration is a job of
  its own; halting it stops the worker. Raises `Ringbridge.Error` in the consumer if the job does not end well.

      iex> {:ok, _pid} = Ringbridge.start_link(name: DocStream, mode: :inline, roles: %{upto: &{:ok, 1..&1}})
      iex> DocStream |> Ringbridge.stream(:upto, 1_000_000) |> Enum.take(3)
      [1, 2, 3]

  `:max_demand` (100) is how many parts may wait for the consumer. There is no timeout unless one is given.
  """
  @impl Client
  @spec stream(name(), role(), payload(), [option() | {:max_demand, pos_integer()}] | map()) ::
          Enumerable.t()
  def stream(name, role, payload, options), do: Parts.stream(name, role, payload, options)

  @doc "The same of a job that is a struct, whose parts are as it declares them; or `stream/4` without options."
  @impl Client
  @spec stream(name(), job(), [option() | {:max_demand, pos_integer()}] | map()) :: Enumerable.t()
  @spec stream(name(), role(), payload()) :: Enumerable.t()
  def stream(name, job_or_role, options_or_payload \\ [])
  def stream(name, %_{} = job, options), do: Parts.stream(name, job, options)
  def stream(name, role, payload), do: stream(name, role, payload, [])

  @doc """
  The nearest bridge as a GenStage producer: a subscription for `subscribe_to:` of a consumer, or for
  `GenStage.stream/1`. `subscribe` are GenStage's options (`:max_demand`, `:min_demand`, `:cancel`, which is `:transient` unless it
  is said). An instance with `mode: :inline` has none.
  """
  @spec producer(name(), role(), payload(), options(), keyword()) ::
          {:ok, {GenServer.server(), keyword()}} | {:error, Error.t()}
  def producer(name, role, payload, options \\ [], subscribe \\ []) do
    Parts.producer(name, role, payload, options, subscribe)
  end

  defp owned!(%Request{owner: owner} = request) do
    if owner != self() do
      raise ArgumentError,
            "a request is its owner's (#{inspect(owner)}); this is #{inspect(self())}"
    end

    request
  end
end
