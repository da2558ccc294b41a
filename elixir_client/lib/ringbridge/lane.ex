defmodule Ringbridge.Lane do
  @moduledoc """
  The way that a job goes to a bridge and its answer comes back: what differs between lanes, and nothing else.

  `Ringbridge.Lane.Dist` is the Erlang distribution, `Ringbridge.Lane.Nif` shared memory with a bridge on this host,
  `Ringbridge.Lane.Inline` a function in the caller's process.
  Choosing a bridge, deadlines, failover, telemetry and errors are the same for all (`Ringbridge.Request`).

  Rules for every lane:

    * Its functions run in the caller's process. A reference belongs to the process that submitted.
    * The end of that process, however it comes, cancels what it has submitted.
    * After `c:call/3`, `c:cancel/2`, and an outcome other than `:timeout` of the others, nothing of that reference is in
      the mailbox, and nothing will come.
    * No function exits, links, or touches a message that is not the lane's own.
  """

  alias Ringbridge.Deadline

  @typedoc "Where the job goes; the lane's own business. The distribution has the bridge's node, shared memory its handle too."
  @type to :: term()

  @typedoc "A request of docs/calling.md, such as `{:submit, role, payload, options}`."
  @type message :: tuple()

  @typedoc """
  What came of it: the bridge's answer as it stands in docs/errors.md, or the end of whoever should have given it, with
  the reason of a DOWN. `:noproc` says that nobody had taken the job.
  """
  @type outcome :: {:answer, term()} | {:down, reason :: term()}

  @doc "Submits and waits; on `:timeout` the job is cancelled."
  @callback call(to(), message(), timeout()) :: outcome() | :timeout

  @doc "Submits and returns."
  @callback submit(to(), message()) :: reference()

  @doc "Waits for what was submitted; after `:timeout` it can be waited for again."
  @callback await(to(), reference(), timeout()) :: outcome() | :timeout

  @doc "Cancels what was submitted, unless its outcome is there already."
  @callback cancel(to(), reference()) :: outcome() | :ok

  @doc "Whether a message that the caller has received is the outcome; `:other` if not."
  @callback check(to(), reference(), message :: term()) :: outcome() | :other

  @doc """
  Submits for nobody: no answer will come, and the caller's end cancels nothing. `{:down, :noconnection}` when it was not
  even sent.
  """
  @callback cast(to(), message()) :: :ok | {:down, :noconnection}

  @doc """
  A job's parts, asked for as far as they are consumed. Yields `{:parts, [part]}` any number of times, then at most
  one `{:end, reason}`, `:normal` when the job is done; `:timeout` when there was no end by `until_ms`, and the job is cancelled.
  """
  @callback parts(to(), job :: tuple(), demand :: pos_integer(), until_ms :: Deadline.t()) ::
              Enumerable.t()
end
